// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

func TestHorizon(t *testing.T) {
	const none = storage.NoTime
	for _, x := range []struct {
		maxT, cutoff int64
		window       time.Duration
		want         int64
	}{
		{none, none, 0, none},
		{none, 5, time.Hour, 5},
		{base, none, 0, base - minHorizon},
		{base, none, time.Minute, base - minHorizon},
		{base, none, 3 * time.Hour, base - 3*minHorizon},
		{base, base - 10, 0, base - 10},
		{base, base + 10, 0, base + 10},
		{none + 1, none, 0, none}, // must not wrap round
		{none + 1, 7, math.MaxInt64, 7},
		{0, none, math.MaxInt64, -math.MaxInt64 / 1_000_000},
		{math.MaxInt64, none, 0, math.MaxInt64 - minHorizon},
	} {
		require.Equal(t, x.want, horizon(x.maxT, x.cutoff, x.window), "%+v", x)
	}
}

// An absurd timestamp, as the first of all, must not stop the state machine nor
// its flusher, nor close the door on all that follow.
func TestAbsurdTimestamps(t *testing.T) {
	for _, ts := range []int64{math.MinInt64, math.MinInt64 + 1, math.MinInt64 + 1<<50, -maxTimestamp - 1, -maxTimestamp, -1, 0} {
		t.Run(fmt.Sprint(ts), func(t *testing.T) {
			f, l := alone(t)
			out := put(t, f, l, name("old"), ts, 1)
			if ts < -maxTimestamp {
				require.Equal(t, map[Reason]int{Invalid: 1}, out.Refused)
			} else {
				require.Equal(t, 1, out.Floats)
			}
			require.Equal(t, 1, put(t, f, l, name("x"), base, 1).Floats)
			require.NoError(t, f.Storage().Freeze())
			_, err := f.Storage().FlushOne()
			require.NoError(t, err)
			require.Equal(t, "0=1", floatsOf(t, f, name("x")))
			require.Equal(t, 1+out.Floats, strings.Count(dump(t, f), "\n"))
		})
	}
	for _, ts := range []int64{maxTimestamp, maxTimestamp + 1, math.MaxInt64} { // a Proposer that does not refuse the far future
		f, l := alone(t)
		put(t, f, l, name("future"), ts, 1)
		require.NoError(t, f.Err())
		require.NoError(t, f.Storage().Freeze())
		_, err := f.Storage().FlushOne()
		require.NoError(t, err)
	}
}

func TestSame(t *testing.T) {
	nan, stale := math.NaN(), math.Float64frombits(value.StaleNaN)
	h, gauge := tsdbutil.GenerateTestHistogram(1), tsdbutil.GenerateTestGaugeHistogram(1)
	padded := h.Copy()
	padded.PositiveSpans[len(padded.PositiveSpans)-1].Length++
	padded.PositiveBuckets = append(padded.PositiveBuckets, -padded.PositiveBuckets[0])
	sum := int64(0)
	for _, d := range padded.PositiveBuckets[:len(padded.PositiveBuckets)-1] {
		sum += d
	}
	padded.PositiveBuckets[len(padded.PositiveBuckets)-1] = -sum // an empty bucket
	hinted := h.Copy()
	hinted.CounterResetHint = histogram.CounterReset
	fh := tsdbutil.GenerateTestFloatHistogram(1)
	list := []struct {
		class int // samples of one class are the same
		x     sample
	}{
		{1, sample{V: 1}},
		{1, sample{V: 1}},
		{2, sample{V: 2}},
		{3, sample{V: 0}},
		{4, sample{V: math.Copysign(0, -1)}},
		{5, sample{V: nan}},
		{5, sample{V: nan}},
		{6, sample{V: math.Float64frombits(math.Float64bits(nan) + 1)}},
		{7, sample{V: stale}},
		{7, sample{H: &histogram.Histogram{Sum: stale}}},
		{7, sample{FH: &histogram.FloatHistogram{Sum: stale}}},
		{8, sample{H: h}},
		{8, sample{H: padded}},
		{8, sample{H: hinted}},
		{9, sample{H: gauge}},
		{10, sample{FH: fh}},
		{10, sample{FH: fh.Copy()}},
		{11, sample{FH: tsdbutil.GenerateTestFloatHistogram(2)}},
		{12, sample{H: tsdbutil.GenerateTestCustomBucketsHistogram(1)}},
	}
	for i, a := range list {
		for j, b := range list {
			require.Equal(t, a.class == b.class, same(a.x, b.x), "%d and %d", i, j)
		}
	}
}

// One request may hold the histograms of a series and the float stale marker
// that ends it. Positions, and so the decisions, go by section: floats first.
func TestHistogramsBeforeAStaleMarkerInOneRequest(t *testing.T) {
	f, l := alone(t)
	out := commit(t, f, l, func(b *Batch) {
		b.Series(nil, name("h"))
		b.Histogram(base, tsdbutil.GenerateTestHistogram(1))
		b.Histogram(base+15_000, tsdbutil.GenerateTestHistogram(2))
		b.Float(base+30_000, math.Float64frombits(value.StaleNaN))
	})
	require.Empty(t, out.Refused)
	require.Equal(t, 2, out.Histograms)
}
