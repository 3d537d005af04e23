// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"pgregory.net/rapid"

	"github.com/deucaliondb/deucalion/storage"
)

// genSample is a drawn sample.
type genSample struct {
	series int
	sample storage.Sample
}

// drawSamples draws one request: at most one sample a series and time, sorted as
// a Batch does.
func (w *twin) drawSamples() []genSample {
	type key struct {
		series int
		t      int64
	}
	seen := map[key]bool{}
	var out []genSample
	for range rapid.IntRange(5, 60).Draw(w.T, "samples") {
		i := rapid.IntRange(0, numSeries-1).Draw(w.T, "series")
		if (w.now/(100*minute)+int64(i))%4 == 0 {
			continue // asleep: long enough to be dropped, perhaps
		}
		t := w.now - int64(i%5)*20*minute // some series lag behind
		switch rapid.IntRange(0, 7).Draw(w.T, "when") {
		case 0:
			t -= rapid.Int64Range(0, 200*minute).Draw(w.T, "late")
		case 1:
			t = t / (5 * minute) * (5 * minute) // likely to collide
		case 2:
			t += rapid.Int64Range(0, minute).Draw(w.T, "jitter")
		}
		if k := (key{i, t}); !seen[k] {
			seen[k] = true
			out = append(out, genSample{series: i, sample: w.drawSample(i, t)})
		}
	}
	slices.SortFunc(out, func(a, b genSample) int {
		if a.series != b.series {
			return a.series - b.series
		}
		return int(a.sample.T - b.sample.T)
	})
	return out
}

func (w *twin) drawSample(series int, t int64) storage.Sample {
	x := storage.Sample{T: t}
	v := rapid.Int64Range(0, 4).Draw(w.T, "value")
	if rapid.IntRange(0, 19).Draw(w.T, "stale") == 0 {
		x.V = math.Float64frombits(value.StaleNaN)
		return x
	}
	kind := series % 8
	if rapid.IntRange(0, 29).Draw(w.T, "change type") == 0 {
		kind = int(v)
	}
	switch kind {
	case 3:
		x.H = tsdbutil.GenerateTestHistogram(v)
	case 4:
		x.FH = tsdbutil.GenerateTestFloatHistogram(v)
	case 5:
		x.H = tsdbutil.GenerateTestCustomBucketsHistogram(v)
	case 6:
		x.FH = tsdbutil.GenerateTestCustomBucketsFloatHistogram(v)
	case 7:
		x.H = tsdbutil.GenerateTestGaugeHistogram(v)
		if v == 2 {
			x.H = &histogram.Histogram{Count: 3, Sum: 1, PositiveSpans: []histogram.Span{{Offset: 5, Length: 2}}, PositiveBuckets: []int64{2, -1}}
		}
	default:
		x.V = float64(v)
	}
	if v < 2 && (kind == 3 || kind == 4) { // a counter that has no samples in some buckets yet
		h := &histogram.Histogram{
			Count: uint64(4 + 3*v), Sum: float64(v), Schema: 1, ZeroThreshold: 0.001,
			PositiveSpans: []histogram.Span{{Offset: -1, Length: 4}}, PositiveBuckets: []int64{1, v - 1, 1 - v, 0},
			NegativeSpans: []histogram.Span{{Offset: 1, Length: 3}}, NegativeBuckets: []int64{v, -v, 1 + v},
		}
		if kind == 3 {
			x.H = h
		} else {
			x.FH = h.ToFloat(nil)
		}
	}
	return x
}

// addExtras puts some exemplars and metadata into an entry.
func (w *twin) addExtras(e *appendEntry) {
	for range rapid.IntRange(0, 3).Draw(w.T, "exemplars") {
		x := record.RefExemplar{
			T:      w.now - rapid.Int64Range(0, 2).Draw(w.T, "earlier"),
			V:      float64(rapid.IntRange(0, 2).Draw(w.T, "exemplar value")),
			Labels: labels.FromStrings("trace", fmt.Sprint(rapid.IntRange(0, 5).Draw(w.T, "trace"))),
		}
		if w.chance(5, "too long") {
			x.Labels = labels.FromStrings("trace", strings.Repeat("x", exemplar.ExemplarMaxLabelSetLength))
		}
		switch i := rapid.IntRange(0, numSeries-1).Draw(w.T, "of series"); {
		case w.chance(30, "with labels") && len(e.series) > 0:
			x.Ref = refOf(uint64(i % len(e.series)))
			e.fresh.exemplars = append(e.fresh.exemplars, x)
		case w.model.ids[i] != 0: // also one that is dropped: it goes with its series
			x.Ref = refOf(w.model.ids[i])
			e.known.exemplars = append(e.known.exemplars, x)
		}
	}
	if w.chance(10, "metadata") {
		e.metadata = append(e.metadata, familyMetadata{fmt.Sprint("m", rapid.IntRange(0, 3).Draw(w.T, "family")), metadata.Metadata{
			Type: "counter", Unit: rapid.SampledFrom([]string{"", "bytes"}).Draw(w.T, "unit"), Help: fmt.Sprint("help ", rapid.IntRange(0, 12).Draw(w.T, "help")),
		}})
	}
}
