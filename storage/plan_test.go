// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
)

const (
	hour = int64(time.Hour / time.Millisecond)
	mib  = int64(1 << 20)
)

// sp is a block [from, to) in hours; its id is its position in the list.
func sp(from, to float64, bytes int64) span {
	return span{mint: int64(from * float64(hour)), maxt: int64(to * float64(hour)), bytes: bytes}
}

func numbered(spans []span) []span {
	for i := range spans {
		spans[i].id = ulid.ULID{15: byte(i), 14: byte(i >> 8)}
	}
	return spans
}

func TestPlan(t *testing.T) {
	for _, x := range []struct {
		name  string
		spans []span
		now   float64 // hours
		max   time.Duration
		want  []int
	}{
		{name: "nothing"},
		{name: "one block", spans: []span{sp(0, 2, mib)}, now: 100},
		{name: "hot partition, few", spans: []span{sp(0, 0.5, mib), sp(0.5, 1, mib), sp(1, 1.5, mib)}, now: 1.5},
		{name: "hot partition, enough", spans: []span{sp(0, 0.5, mib), sp(0.5, 1, mib), sp(1, 1.5, mib), sp(1.5, 2, mib)}, now: 2, want: []int{0, 1, 2, 3}},
		{name: "just complete is still hot", spans: []span{sp(0, 1, mib), sp(1, 2, mib)}, now: 2.99},
		{name: "cold partition", spans: []span{sp(0, 1, mib), sp(1, 2, mib)}, now: 3, want: []int{0, 1}},
		{name: "cold partition before hot", spans: []span{sp(0, 1, mib), sp(1, 2, mib), sp(4, 4.1, mib)}, now: 4.1, want: []int{0, 1}},
		{name: "negative times", spans: []span{sp(-2, -1, mib), sp(-1, 0, mib), sp(0, 1, mib)}, now: 1, want: []int{0, 1}},

		{name: "a level", spans: []span{sp(0, 2, mib), sp(2, 4, mib), sp(4, 6, mib), sp(6, 8, mib)}, now: 8, want: []int{0, 1, 2}},
		{name: "a level is not complete", spans: []span{sp(0, 2, mib), sp(2, 4, mib), sp(4, 6, mib)}, now: 7.9},
		{name: "not aligned", spans: []span{sp(2, 4, mib), sp(4, 6, mib), sp(6, 8, mib), sp(8, 10, mib)}, now: 10, want: []int{0, 1}},
		{name: "a level with a hole", spans: []span{sp(0, 2, mib), sp(4, 6, mib)}, now: 8, want: []int{0, 1}},
		{name: "second level", spans: []span{sp(0, 6, mib), sp(6, 12, mib), sp(12, 18, mib), sp(18, 20, mib)}, now: 20, want: []int{0, 1, 2}},
		{name: "lowest level first", spans: []span{sp(0, 6, mib), sp(6, 12, mib), sp(12, 18, mib), sp(18, 20, mib), sp(20, 22, mib), sp(22, 24, mib)}, now: 26, want: []int{3, 4, 5}},
		{name: "a block across a window is no part of it", spans: []span{sp(0, 2, mib), sp(2, 4, mib), sp(4, 8, mib)}, now: 12, want: []int{0, 1}},

		{name: "one late block waits", spans: []span{sp(0, 6, 100*mib), sp(3, 3.1, mib)}, now: 100},
		{name: "a late block of some weight", spans: []span{sp(0, 6, 100*mib), sp(3, 3.1, 10*mib)}, now: 100, want: []int{0, 1}},
		{name: "several late blocks", spans: []span{sp(0, 6, 100*mib), sp(1, 1.1, mib), sp(3, 3.1, mib)}, now: 100, want: []int{0, 1, 2}},
		{name: "late blocks of one partition first", spans: []span{sp(0, 6, 100*mib), sp(3, 3.1, mib), sp(3.1, 3.2, mib)}, now: 100, want: []int{1, 2}},
		{name: "late in a larger window", spans: []span{sp(0, 18, 100*mib), sp(3, 3.1, mib)}, now: 100},

		{name: "largest span", spans: []span{sp(0, 6, mib), sp(6, 12, mib), sp(12, 18, mib)}, now: 100, max: 17 * time.Hour},
		{name: "within the largest span", spans: []span{sp(0, 6, mib), sp(6, 12, mib), sp(12, 18, mib)}, now: 100, max: 18 * time.Hour, want: []int{0, 1, 2}},
		{name: "no levels at all", spans: []span{sp(0, 2, mib), sp(2, 4, mib), sp(4, 6, mib)}, now: 100, max: 2 * time.Hour},
	} {
		t.Run(x.name, func(t *testing.T) {
			if x.max == 0 {
				x.max = 31 * 24 * time.Hour
			}
			var want []ulid.ULID
			for _, i := range x.want {
				want = append(want, numbered(x.spans)[i].id)
			}
			require.ElementsMatch(t, want, plan(numbered(x.spans), int64(x.now*float64(hour)), x.max))
		})
	}
}

// mergeOnce replaces the planned blocks by one, as MergeOne does.
func mergeOnce(t *testing.T, spans []span, chosen []ulid.ULID, next *uint16) []span {
	*next++
	out := span{id: ulid.ULID{14: byte(*next >> 8), 15: byte(*next)}}
	var kept []span
	n := 0
	for _, s := range spans {
		if !slices.Contains(chosen, s.id) {
			kept = append(kept, s)
			continue
		}
		if n == 0 {
			out.mint, out.maxt = s.mint, s.maxt
		}
		n++
		out.mint, out.maxt, out.bytes = min(out.mint, s.mint), max(out.maxt, s.maxt), out.bytes+s.bytes
	}
	require.Len(t, chosen, n, "every planned block is there, once")
	require.GreaterOrEqual(t, n, 2, "a merge of one block would never end")
	return append(kept, out)
}

// Whatever the blocks, planning comes to an end; a merge stays within one aligned
// window that is not too long; and what is not merged any more has no two blocks
// that are alone in a cold partition.
func TestPlanEnds(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		maxSpan := []time.Duration{2 * time.Hour, 18 * time.Hour, 31 * 24 * time.Hour}[seed%3]
		var spans []span
		for range r.IntN(80) {
			from := (r.Float64() - 0.2) * 300
			if p := from - from/2; r.IntN(4) > 0 && p > 0 { // mostly within a partition
				from = float64(int(from/2)*2) + r.Float64()
			}
			spans = append(spans, sp(from, from+0.01+r.Float64()*[]float64{1, 1, 1, 30}[r.IntN(4)], r.Int64N(100*mib)))
		}
		spans = numbered(spans)
		next := uint16(1000)
		for steps := 0; ; steps++ {
			now := NoTime
			for _, s := range spans {
				now = max(now, s.maxt)
			}
			chosen := plan(spans, now, maxSpan)
			if len(chosen) == 0 {
				break
			}
			require.Less(t, steps, 80, "seed %d", seed)
			spans = mergeOnce(t, spans, chosen, &next)
			requireWithinWindow(t, spans[len(spans)-1], maxSpan)
		}
	}
}

func requireWithinWindow(t *testing.T, s span, maxSpan time.Duration) {
	t.Helper()
	for w := partition; w <= maxSpan.Milliseconds(); w *= levelFactor {
		if k := floorDiv(s.mint, w); s.maxt <= (k+1)*w {
			return
		}
	}
	t.Fatalf("[%d, %d) fits into no window up to %v", s.mint, s.maxt, maxSpan)
}

// A stream of regular flushes is written a bounded number of times, and leaves
// few blocks.
func TestPlanWriteAmplification(t *testing.T) {
	var spans []span
	var written, flushed int64
	next := uint16(0)
	for i := range 14 * 48 { // two weeks of half hours
		next++
		s := sp(float64(i)/2, float64(i)/2+0.5, mib)
		s.id = ulid.ULID{14: byte(next >> 8), 15: byte(next)}
		spans, flushed = append(spans, s), flushed+mib
		for {
			chosen := plan(spans, s.maxt, 31*24*time.Hour)
			if len(chosen) == 0 {
				break
			}
			spans = mergeOnce(t, spans, chosen, &next)
			written += spans[len(spans)-1].bytes
		}
	}
	require.Less(t, len(spans), 16)
	require.LessOrEqual(t, written, 6*flushed, "each byte is merged once a level")
}
