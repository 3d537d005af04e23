// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"math"
	"time"

	"github.com/deucaliondb/deucalion/fsm"
)

const (
	digestPartition = int64(2 * time.Hour / time.Millisecond)
	digestDay       = int64(24 * time.Hour / time.Millisecond)
	// digestDecided is how old samples are at least that are compared, so that most of what will come has come.
	digestDecided = time.Hour
	// maxPartitions bounds the newest range of one digest.
	maxPartitions = 12
)

// keepDigests is the leader's duty to have the members compare their data, every DigestInterval.
func (n *Node) keepDigests(ctx context.Context) {
	if n.cfg.DigestInterval < 0 {
		return
	}
	tick(ctx, min(dutiesEvery, n.cfg.DigestInterval), func() {
		// Counted from what this node has heard, so that a change of leader neither adds a digest nor drops one.
		last, _ := n.verdicts.scheduled()
		if last.IsZero() {
			last = n.started
		}
		if time.Since(last) < n.cfg.DigestInterval || len(n.servers()) < 2 {
			return
		}
		if n.levelReached(fsm.EncodeDigest(fsm.Digest{})) != nil {
			return // until all members have been upgraded
		}
		n.duty(ctx, "digest", func(ctx context.Context) error {
			_, err := n.digest(ctx, n.digestRanges(time.Now()), true)
			return err
		})
	})
}

// digestRanges are the newest partitions that are complete, as many as one interval has added, and one older day, in
// turns. Without data there are none, and only the tables are compared.
func (n *Node) digestRanges(now time.Time) []fsm.TimeRange {
	maxT := n.fsm.MaxTime()
	start, err := n.fsm.StartTime()
	if maxT == math.MinInt64 || err != nil || start == math.MaxInt64 {
		return nil
	}
	_, before := n.verdicts.scheduled()
	window := max(n.fsm.Settings().OutOfOrderWindow, digestDecided)
	return planDigest(start, maxT-window.Milliseconds(), n.cfg.DigestInterval, before, now)
}

// planDigest works on [start, end). before is what the last digest covered; the day before the one in it is next.
func planDigest(start, end int64, interval time.Duration, before []fsm.TimeRange, now time.Time) []fsm.TimeRange {
	end = floorTo(end, digestPartition)
	if end <= start {
		return nil
	}
	parts := min(maxPartitions, 1+(interval.Milliseconds()-1)/digestPartition)
	newest := fsm.TimeRange{Mint: max(floorTo(start, digestPartition), end-parts*digestPartition), Maxt: end - 1}
	out := []fsm.TimeRange{newest}
	if newest.Mint <= start {
		return out
	}
	first, last := floorTo(start, digestDay), floorTo(newest.Mint-1, digestDay)
	// A node that knows of no digest begins where the clock says: a cluster that is restarted every day would
	// otherwise look at the same days again and again.
	day := last
	if n := (last-first)/digestDay + 1; n > 1 {
		day -= (now.UnixMilli() / max(1, interval.Milliseconds())) % n * digestDay
	}
	if len(before) > 1 {
		day = floorTo(before[1].Mint, digestDay) - digestDay
		if day < first || day > last {
			day = last
		}
	}
	return append(out, fsm.TimeRange{Mint: day, Maxt: min(day+digestDay, end) - 1})
}

func floorTo(t, unit int64) int64 {
	r := t % unit
	if r < 0 {
		r += unit
	}
	return t - r
}
