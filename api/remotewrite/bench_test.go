// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite_test

import (
	"testing"
	"time"
	"unsafe"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api/remotewrite"
)

// counter is a sink that costs next to nothing, so that a benchmark shows the decoder.
type counter struct {
	known map[string]labels.Labels
	last  labels.Labels
	n     int
}

func (c *counter) SeriesByKey(key []byte) (ok bool) {
	c.last, ok = c.known[unsafe.String(unsafe.SliceData(key), len(key))]
	return ok
}
func (c *counter) Series(key []byte, ls labels.Labels)             { c.known[string(key)] = ls }
func (c *counter) Labels() labels.Labels                           { return c.last }
func (c *counter) Float(int64, float64)                            { c.n++ }
func (c *counter) Histogram(int64, *histogram.Histogram)           { c.n++ }
func (c *counter) FloatHistogram(int64, *histogram.FloatHistogram) { c.n++ }
func (c *counter) Exemplar(exemplar.Exemplar)                      {}
func (c *counter) Metadata(_ string, _ metadata.Metadata)          {}

func benchmarkDecode(b *testing.B, v2 bool, body []byte, samples int) {
	var d remotewrite.Decoder
	c := &counter{known: map[string]labels.Labels{}}
	_, err := d.Decode(c, v2, body, testMaxTime, testMaxLabel)
	require.NoError(b, err)
	require.Equal(b, samples, c.n)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := d.Decode(c, v2, body, testMaxTime, testMaxLabel); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(samples), "ns/sample")
}

// The shape of a Prometheus sender: 2000 samples a request, one of each series.
func BenchmarkDecodeV1(b *testing.B) {
	benchmarkDecode(b, false, marshal(b, requestV1(2000, 1, 1000)), 2000)
}

func BenchmarkDecodeV2(b *testing.B) {
	benchmarkDecode(b, true, marshal(b, requestV2(2000, 1, 1000)), 2000)
}

// BenchmarkUnmarshalV1 is what the generated decoder takes alone, before any label set is built.
func BenchmarkUnmarshalV1(b *testing.B) {
	body := marshal(b, requestV1(2000, 1, 1000))
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		var req prompb.WriteRequest
		if err := req.Unmarshal(body); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/sample")
}

// BenchmarkHandler is a whole request but for HTTP and Raft: snappy, decoding, the batch, the entry, its apply.
func BenchmarkHandler(b *testing.B) {
	r := newReceiver(b, nil)
	req := requestV1(2000, 1, 0)
	t := now.UnixMilli()
	next := func() []byte {
		t += 1
		for i := range req.Timeseries {
			req.Timeseries[i].Samples[0].Timestamp = t
		}
		return snappy.Encode(nil, marshal(b, req))
	}
	require.Equal(b, 204, r.post(next()).code)
	b.ReportAllocs()
	var spent time.Duration
	for b.Loop() {
		body := next()
		begin := time.Now()
		if a := r.post(body); a.code != 204 {
			b.Fatal(a.text)
		}
		spent += time.Since(begin)
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N)/2000, "ns/sample")
}
