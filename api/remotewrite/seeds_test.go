// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite_test

import (
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

func pbLabels(pairs ...string) (out []prompb.Label) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, prompb.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return out
}

func marshal(tb testing.TB, m interface{ Marshal() ([]byte, error) }) []byte {
	tb.Helper()
	b, err := m.Marshal()
	require.NoError(tb, err)
	return b
}

// seedsV1 is the seed corpus: each thing that a request can hold, and each way in which it can be odd.
func seedsV1(tb testing.TB) [][]byte {
	h, fh := tsdbutil.GenerateTestHistogram(3), tsdbutil.GenerateTestCustomBucketsFloatHistogram(4)
	one := func(ts prompb.TimeSeries) []byte {
		return marshal(tb, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{ts}})
	}
	return [][]byte{
		{},
		marshal(tb, requestV1(3, 2, 1000)),
		one(prompb.TimeSeries{
			Labels:     pbLabels("__name__", "h"),
			Histograms: []prompb.Histogram{prompb.FromIntHistogram(1, h), prompb.FromFloatHistogram(2, fh)},
			Exemplars:  []prompb.Exemplar{{Labels: pbLabels("trace_id", "x"), Value: 1, Timestamp: 2}},
		}),
		one(prompb.TimeSeries{Labels: pbLabels("b", "1", "__name__", "unsorted", "a", ""), Samples: []prompb.Sample{{}}}),
		one(prompb.TimeSeries{Labels: pbLabels("__name__", "dup", "a", "1", "a", "2"), Samples: []prompb.Sample{{Value: 1}}}),
		one(prompb.TimeSeries{Labels: pbLabels("__name__", "bad\xff"), Samples: []prompb.Sample{{Timestamp: -1}}}),
		one(prompb.TimeSeries{Labels: pbLabels("a", "no name"), Samples: []prompb.Sample{{Timestamp: 1 << 50}}}),
		one(prompb.TimeSeries{Labels: pbLabels("__name__", "empty")}),
		marshal(tb, &prompb.WriteRequest{Metadata: []prompb.MetricMetadata{{Type: 1, MetricFamilyName: "f", Help: "h", Unit: "u"}}}),
		append(one(prompb.TimeSeries{Labels: pbLabels("__name__", "cut"), Samples: []prompb.Sample{{}}}), 0x0a, 0x7f, 1),
		// Labels behind samples, an unknown field, a group.
		{0x0a, 0x14, 0x12, 0x02, 0x10, 0x05, 0x0a, 0x0d, 0x0a, 0x08, '_', '_', 'n', 'a', 'm', 'e', '_', '_', 0x12, 0x01, 'x', 0x28},
		{0x1b, 0x08, 0x01, 0x1c, 0x0a, 0x00},
	}
}

// seedsV2 is seedsV1 for version 2.
func seedsV2(tb testing.TB) [][]byte {
	h, fh := tsdbutil.GenerateTestHistogram(3), tsdbutil.GenerateTestCustomBucketsFloatHistogram(4)
	symbols := []string{"", "__name__", "metric", "a", "b", "help", "\xff"}
	one := func(ts writev2.TimeSeries) []byte {
		return marshal(tb, &writev2.Request{Symbols: symbols, Timeseries: []writev2.TimeSeries{ts}})
	}
	some := []writev2.Sample{{Value: 1, Timestamp: 2, StartTimestamp: 1}}
	return [][]byte{
		{},
		marshal(tb, requestV2(3, 2, 1000)),
		one(writev2.TimeSeries{
			LabelsRefs: []uint32{1, 2}, Histograms: []writev2.Histogram{writev2.FromIntHistogram(0, 1, h), writev2.FromFloatHistogram(0, 2, fh)},
			Exemplars: []writev2.Exemplar{{LabelsRefs: []uint32{3, 4}, Value: 1, Timestamp: 2}, {LabelsRefs: []uint32{9, 9}}},
			Metadata:  writev2.Metadata{Type: 1, HelpRef: 5, UnitRef: 0},
		}),
		one(writev2.TimeSeries{LabelsRefs: []uint32{3, 4, 1, 2}, Samples: some}),
		one(writev2.TimeSeries{LabelsRefs: []uint32{1, 2, 1, 2}, Samples: some}),
		one(writev2.TimeSeries{LabelsRefs: []uint32{1}, Samples: some}),
		one(writev2.TimeSeries{LabelsRefs: []uint32{1, 99}, Samples: some}),
		one(writev2.TimeSeries{LabelsRefs: []uint32{1, 6}, Samples: some}),
		one(writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Samples: some, Metadata: writev2.Metadata{UnitRef: 99}}),
		one(writev2.TimeSeries{LabelsRefs: []uint32{1, 2}}),
		marshal(tb, &writev2.Request{Symbols: []string{"x"}}),
	}
}

func testLabels(i int) labels.Labels {
	return labels.FromStrings("__name__", fmt.Sprintf("metric_%d_total", i%100), "cluster", "eu-west-1", "container", "server",
		"instance", fmt.Sprintf("10.0.%d.%d:9100", i/250%250, i%250), "job", "node", "namespace", "default",
		"pod", fmt.Sprintf("server-%d", i), "zone", "a")
}

// requestV1 is a request as senders write it: series of 8 labels with a few samples each.
func requestV1(series, samples int, start int64) *prompb.WriteRequest {
	req := &prompb.WriteRequest{}
	for i := range series {
		ts := prompb.TimeSeries{Labels: prompb.FromLabels(testLabels(i), nil)}
		for j := range samples {
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: start + int64(j)*15000, Value: float64(i * j)})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	return req
}

// requestV2 is requestV1 in version 2.
func requestV2(series, samples int, start int64) *writev2.Request {
	symbols := writev2.NewSymbolTable()
	req := &writev2.Request{}
	for i := range series {
		ts := writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(testLabels(i), nil)}
		ts.Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: symbols.Symbolize("what it counts")}
		for j := range samples {
			ts.Samples = append(ts.Samples, writev2.Sample{Timestamp: start + int64(j)*15000, Value: float64(i * j)})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = symbols.Symbols()
	return req
}
