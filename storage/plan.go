// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

// span is what the plan knows of a block. maxt is exclusive.
type span struct {
	id         ulid.ULID
	mint, maxt int64
	bytes      int64
}

const (
	// hotRuns is how many blocks a 2 h partition gathers before they are merged.
	// Freezes come about every half hour, so a partition is merged about once
	// while it fills, and once more when it is complete.
	hotRuns = 4
	// levelFactor is how many windows of one level make one of the next: 2 h,
	// 6 h, 18 h ... as in Prometheus.
	levelFactor = 3
)

// maxBlockSpan bounds a merged block to a tenth of what retention keeps, as Prometheus does: a block stays on the disk
// until all of it is expired. But not below the level after partitions.
func maxBlockSpan(most time.Duration, now, cutoff int64) time.Duration {
	if cutoff == NoTime || now < cutoff {
		return most
	}
	tenth := max((now-cutoff)/10, partition*levelFactor)
	return time.Duration(min(most.Milliseconds(), tenth)) * time.Millisecond
}

// plan chooses the blocks to merge next, or none. now is the largest timestamp
// of any block. Pure, so that it can be tested without blocks.
//
// Prometheus's own plan is not used: it would merge any overlap at once, the
// newest blocks included (facts: trap 17), and each late sample would rewrite
// the block that it falls into.
func plan(spans []span, now int64, maxSpan time.Duration) []ulid.ULID {
	if p := planPartitions(spans, now); len(p) > 0 {
		return p
	}
	return planLevels(spans, now, maxSpan.Milliseconds())
}

// planPartitions merges the small blocks of one 2 h partition: any two or more
// once the partition is complete and cold, hotRuns before.
func planPartitions(spans []span, now int64) []ulid.ULID {
	for start, group := range windows(spans, partition) {
		cold := start+partition+partition/2 <= now
		if len(group) >= hotRuns || (cold && len(group) >= 2) {
			return ids(group)
		}
	}
	return nil
}

// planLevels merges complete windows into larger blocks. A block that came late
// into a window that is merged already stays apart until there are two of them,
// or they are a tenth of the large block: merging each at once would rewrite
// everything for a few samples.
func planLevels(spans []span, now, maxSpan int64) []ulid.ULID {
	for w := partition * levelFactor; w <= maxSpan; w *= levelFactor {
		for start, group := range windows(spans, w) {
			if start+w+partition > now || len(group) < 2 {
				continue
			}
			if len(group) >= levelFactor || worthwhile(group) {
				return ids(group)
			}
		}
	}
	return nil
}

func worthwhile(group []span) bool {
	var sum, largest int64
	for _, s := range group {
		sum += s.bytes
		largest = max(largest, s.bytes)
	}
	return sum-largest >= largest/10
}

// windows groups the blocks that lie wholly in one aligned window of width w,
// in order of time.
func windows(spans []span, w int64) func(func(int64, []span) bool) {
	groups := map[int64][]span{}
	for _, s := range spans {
		k := floorDiv(s.mint, w)
		if s.maxt <= (k+1)*w {
			groups[k] = append(groups[k], s)
		}
	}
	keys := make([]int64, 0, len(groups))
	for k := range groups {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return func(yield func(int64, []span) bool) {
		for _, k := range keys {
			if !yield(k*w, groups[k]) {
				return
			}
		}
	}
}

func ids(group []span) []ulid.ULID {
	out := make([]ulid.ULID, len(group))
	for i, s := range group {
		out[i] = s.id
	}
	return out
}
