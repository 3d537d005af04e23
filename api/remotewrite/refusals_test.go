// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite_test

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

// TestRefusals sends, for each kind of bad data, a request that also holds good data before and behind it: the good
// data must be stored, the bad data not, and the writer must be told.
func TestRefusals(t *testing.T) {
	badHistogram := prompb.FromIntHistogram(now.UnixMilli(), tsdbutil.GenerateTestHistogram(1))
	badHistogram.PositiveSpans[0].Length = 99
	labelled := func(pairs ...string) prompb.TimeSeries {
		return prompb.TimeSeries{Labels: pbLabels(pairs...), Samples: []prompb.Sample{at(0, 1)}}
	}
	for name, tc := range map[string]struct {
		bad    prompb.TimeSeries
		text   string
		reason string
	}{
		"too old":        {series("bad", at(-2*3600_000, 1)), "too old sample", "too_old"},
		"too new":        {series("bad", at(11*60_000, 1)), "out of bounds: timestamp is too far in the future", "out_of_bounds"},
		"out of order":   {series("seen", at(-1000, 1)), "out of order sample", "out_of_order"},
		"duplicate":      {series("seen", at(0, 2)), "duplicate sample for timestamp", "duplicate"},
		"no name":        {labelled("a", "b"), `invalid metric name or labels, got {a="b"}`, "invalid_labels"},
		"empty name":     {labelled("__name__", ""), "invalid metric name or labels", "invalid_labels"},
		"not UTF-8":      {labelled("__name__", "x", "a", "\xff"), "invalid metric name or labels", "invalid_labels"},
		"empty label":    {labelled("__name__", "x", "", "v"), "invalid metric name or labels", "invalid_labels"},
		"twice":          {labelled("__name__", "x", "a", "1", "a", "2"), "duplicated label a", "invalid_labels"},
		"10 MB of label": {labelled("__name__", "bad", "a", strings.Repeat("x", 10<<20)), "labels of series bad are too long", "invalid_labels"},
		"histogram": {
			prompb.TimeSeries{Labels: pbLabels("__name__", "h"), Histograms: []prompb.Histogram{badHistogram}},
			"histogram spans specify", "invalid_histogram",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t, nil)
			require.Equal(t, 204, r.v1(t, series("seen", at(0, 1))).code)
			before := r.dump(t)

			a := r.v1(t, series("good1", at(0, 1)), tc.bad, series("good2", at(0, 1)))
			require.Equal(t, 400, a.code)
			require.Contains(t, strings.SplitN(a.text, "\n", 2)[0], tc.text)
			require.Contains(t, a.text, "refused: 1 "+tc.reason+"; written: 2")
			require.Less(t, len(a.text), 4096)
			require.Equal(t, "{__name__=\"good1\"} 0 1\n{__name__=\"good2\"} 0 1\n"+before, r.dump(t))

			a = r.v1(t, series("good1", at(0, 1)), tc.bad, series("good2", at(0, 1)))
			require.Equal(t, 400, a.code, "a retry must be told the same")
			require.Contains(t, a.text, "written: 2")
		})
	}
}

func TestRetryIsHarmless(t *testing.T) {
	r := newReceiver(t, nil)
	stale := prompb.Sample{Timestamp: now.UnixMilli() + 2, Value: math.Float64frombits(value.StaleNaN)}
	first := r.v1(t, series("a", at(0, 1), at(1, 2), stale))
	require.Equal(t, 204, first.code, first.text)
	again := r.v1(t, series("a", at(0, 1), at(1, 2), stale))
	require.Equal(t, 204, again.code, again.text)
	require.Equal(t, "{__name__=\"a\"} 0 1\n{__name__=\"a\"} 1 2\n{__name__=\"a\"} 2 NaN\n", r.dump(t))
	i, err := strconv.ParseUint(again.header.Get("X-Deucalion-Index"), 10, 64)
	require.NoError(t, err)
	applied, _ := r.FSM.Applied()
	require.LessOrEqual(t, i, applied)
	require.Positive(t, i)
}

func TestUnusualLabelOrder(t *testing.T) {
	r := newReceiver(t, nil)
	for i, pairs := range [][]string{
		{"__name__", "m", "a", "1", "b", "2"},
		{"b", "2", "__name__", "m", "a", "1"},
		{"b", "2", "__name__", "m", "empty", "", "a", "1"},
	} {
		for j := range 2 { // with a cold and a warm cache
			ts := prompb.TimeSeries{Labels: pbLabels(pairs...), Samples: []prompb.Sample{at(int64(2*i+j), 1)}}
			require.Equal(t, 204, r.v1(t, ts).code)
		}
	}
	require.Equal(t, 6, strings.Count(r.dump(t), `{__name__="m", a="1", b="2"} `), r.dump(t))
}

// TestNothingOfABrokenRequest cuts a request at every byte: whatever does not decode must leave no trace.
func TestNothingOfABrokenRequest(t *testing.T) {
	body := marshal(t, requestV1(3, 2, now.UnixMilli()))
	r := newReceiver(t, nil)
	for n := range body {
		if a := r.post(snappy.Encode(nil, body[:n])); a.code == 204 {
			var req prompb.WriteRequest
			require.NoError(t, req.Unmarshal(body[:n]), "cut at %d", n)
		} else {
			require.Equal(t, 400, a.code)
		}
	}
	require.Equal(t, 4, strings.Count(r.dump(t), "\n"), "only the first two series were ever whole")
}

func v2Body(t *testing.T, series ...writev2.TimeSeries) []byte {
	t.Helper()
	return snappy.Encode(nil, marshal(t, &writev2.Request{Symbols: []string{"", "__name__", "a", "b", "what it is", "seconds"}, Timeseries: series}))
}

func TestV2Counts(t *testing.T) {
	r := newReceiver(t, nil)
	ts := now.UnixMilli()
	good := writev2.TimeSeries{
		LabelsRefs: []uint32{1, 2},
		Samples:    []writev2.Sample{{Timestamp: ts, Value: 1, StartTimestamp: ts - 1000}, {Timestamp: ts + 1, Value: 2}},
		Histograms: []writev2.Histogram{writev2.FromIntHistogram(0, ts+2, tsdbutil.GenerateTestHistogram(1))},
		Exemplars:  []writev2.Exemplar{{LabelsRefs: []uint32{2, 3}, Value: 1, Timestamp: ts}},
		Metadata:   writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: 4, UnitRef: 5},
	}
	counts := func(a answer) [3]string {
		const p = "X-Prometheus-Remote-Write-"
		return [3]string{a.header.Get(p + "Samples-Written"), a.header.Get(p + "Histograms-Written"), a.header.Get(p + "Exemplars-Written")}
	}
	a := r.post(v2Body(t, good), "Content-Type", typeV2)
	require.Equal(t, 204, a.code, a.text)
	require.Equal(t, [3]string{"2", "1", "1"}, counts(a))
	require.Equal(t, "what it is", r.FSM.MetricMetadata()["a"][0].Help)

	for name, tc := range map[string]struct {
		bad  writev2.TimeSeries
		text string
	}{
		"no samples":        {writev2.TimeSeries{LabelsRefs: []uint32{1, 3}}, "TimeSeries must contain at least one sample or histogram for series b"},
		"odd references":    {writev2.TimeSeries{LabelsRefs: []uint32{1}, Samples: good.Samples}, "invalid labelRefs length 1"},
		"outside of table":  {writev2.TimeSeries{LabelsRefs: []uint32{1, 6}, Samples: good.Samples}, "labelRefs 1 (name) = 6 (value) outside of symbols table (size 6)"},
		"metadata outside":  {writev2.TimeSeries{LabelsRefs: []uint32{1, 3}, Samples: good.Samples, Metadata: writev2.Metadata{HelpRef: 9}}, "metadata help_ref 9 outside of symbols table (size 6)"},
		"duplicate samples": {writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Samples: []writev2.Sample{{Timestamp: ts, Value: 9}}}, "duplicate sample for timestamp"},
	} {
		a := r.post(v2Body(t, tc.bad, good), "Content-Type", typeV2)
		require.Equal(t, 400, a.code, name)
		require.Contains(t, a.text, tc.text, name)
		require.Equal(t, [3]string{"2", "1", "1"}, counts(a), name)
	}
	require.Equal(t, 3, strings.Count(r.dump(t), "\n"), r.dump(t))
}

// TestV2Amplification: a small request whose references would make gigabytes of labels.
func TestV2Amplification(t *testing.T) {
	r := newReceiver(t, nil)
	refs := make([]uint32, 100_000)
	for i := range refs {
		refs[i] = 2
	}
	body := snappy.Encode(nil, marshal(t, &writev2.Request{
		Symbols:    []string{"", "__name__", strings.Repeat("x", 1<<19)},
		Timeseries: []writev2.TimeSeries{{LabelsRefs: refs, Samples: []writev2.Sample{{Timestamp: now.UnixMilli()}}}},
	}))
	a := r.post(body, "Content-Type", typeV2)
	require.Equal(t, 400, a.code)
	require.Contains(t, a.text, "too long")
	require.Empty(t, r.dump(t))
}

func TestV1AndV2ShareTheCache(t *testing.T) {
	r := newReceiver(t, nil)
	require.Equal(t, 204, r.post(snappy.Encode(nil, marshal(t, requestV1(10, 1, now.UnixMilli())))).code)
	a := r.post(snappy.Encode(nil, marshal(t, requestV2(10, 1, now.UnixMilli()+1))), "Content-Type", typeV2)
	require.Equal(t, 204, a.code, a.text)
	require.Equal(t, 20, strings.Count(r.dump(t), "\n"))
	require.Equal(t, "what it counts", r.FSM.MetricMetadata()["metric_1_total"][0].Help)
}
