// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"fmt"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// growing is histogram i of a counter. Bucket 3 is empty in the first five, and others all the time, so that a chunk
// may have to keep empty ones.
func growing(i int) *histogram.Histogram {
	n := uint64(i + 1)
	h := &histogram.Histogram{
		Count: 3 * n, Sum: float64(n),
		PositiveSpans: []histogram.Span{{Offset: 1, Length: 1}, {Offset: 3, Length: 1}}, PositiveBuckets: []int64{int64(n), 0},
		NegativeSpans: []histogram.Span{{Offset: 1, Length: 3}}, NegativeBuckets: []int64{int64(n), -int64(n), 0},
	}
	if i >= 5 {
		h.PositiveSpans = []histogram.Span{{Offset: 1, Length: 1}, {Offset: 1, Length: 1}, {Offset: 1, Length: 1}}
		h.PositiveBuckets = []int64{int64(n), 1 - int64(n), int64(n) - 1}
		h.Count++
	}
	return h
}

// addHistograms appends an integer and a float histogram.
func (x *tester) addHistograms(i int) {
	x.t.Helper()
	ts := base + int64(i)*60_000
	for name, s := range map[string]Sample{"int": {T: ts, H: growing(i)}, "float": {T: ts, FH: growing(i).ToFloat(nil)}} {
		if x.refs[name] == nil {
			x.refs[name] = &Ref{}
		}
		a := x.Appender()
		require.NoError(x.t, a.Append(x.refs[name], series(name), s))
		require.NoError(x.t, a.Commit())
	}
}

// histograms reads all samples of a series as float histograms.
func histograms(t testing.TB, it chunkenc.Iterator, reuse, asInt bool) (out []*histogram.FloatHistogram) {
	t.Helper()
	var h *histogram.Histogram
	var fh *histogram.FloatHistogram
	for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
		if !reuse {
			h, fh = nil, nil
		}
		if vt == chunkenc.ValHistogram && asInt {
			_, h = it.AtHistogram(h)
			out = append(out, h.ToFloat(nil))
			continue
		}
		_, fh = it.AtFloatHistogram(fh)
		out = append(out, fh.Copy())
	}
	require.NoError(t, it.Err())
	return out
}

// TestHistogramsOfAnyLayout: what is read equals what was written, with Equals, which functions and operators
// of PromQL use, whatever else is in the chunk and wherever it begins.
func TestHistogramsOfAnyLayout(t *testing.T) {
	const n = 12
	for freezeAt := range n {
		x := manual(t)
		for i := range n {
			if i == freezeAt {
				x.freezeFlush()
			}
			x.addHistograms(i)
		}
		for _, exact := range []bool{false, true} {
			q, err := x.querier(math.MinInt64, math.MaxInt64, exact)
			require.NoError(t, err)
			for _, reuse := range []bool{false, true} {
				for _, asInt := range []bool{false, true} {
					ss := q.Select(t.Context(), true, nil, named(".+")...)
					for ss.Next() {
						got := histograms(t, ss.At().Iterator(nil), reuse, asInt)
						what := fmt.Sprintf("%s: frozen before %d, exact %v, reuse %v, as int %v", ss.At().Labels(), freezeAt, exact, reuse, asInt)
						require.Len(t, got, n, what)
						for i := range got {
							want := growing(i).ToFloat(nil).Compact(0)
							require.True(t, want.Equals(got[i]), "%s: sample %d is %v (%v), want %v", what, i, got[i], got[i].PositiveSpans, want)
						}
					}
					require.NoError(t, ss.Err())
				}
			}
			require.NoError(t, q.Close())
		}
		cq, err := x.ChunkQuerier(math.MinInt64, math.MaxInt64)
		require.NoError(t, err)
		var all int
		cs := cq.Select(t.Context(), true, &promstorage.SelectHints{Start: math.MinInt64, End: math.MaxInt64}, named(".+")...)
		for cs.Next() {
			i := 0
			for it := cs.At().Iterator(nil); it.Next(); {
				for _, got := range histograms(t, it.At().Chunk.Iterator(nil), false, false) {
					require.Equal(t, growing(i).ToFloat(nil).Compact(0).String(), got.Compact(0).String(), "%s: chunks, frozen before %d, sample %d", cs.At().Labels(), freezeAt, i)
					i++
					all++
				}
			}
		}
		require.NoError(t, cs.Err())
		require.Equal(t, 2*n, all)
		require.NoError(t, cq.Close())
	}
}
