// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"runtime"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/deucaliondb/deucalion/api/remotewrite"
)

func TestInFlightLimit(t *testing.T) {
	const limit = 200_000
	r := newReceiver(t, func(c *remotewrite.Config) { c.MaxInFlightBytes = limit })
	body, sender := io.Pipe()
	answered := make(chan int)
	go func() {
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, httptest.NewRequest("POST", "/api/v1/write", body))
		answered <- w.Code
	}()
	_, err := sender.Write(make([]byte, limit-100))
	require.NoError(t, err)
	_, err = sender.Write([]byte{0}) // is read once the bytes before it are counted
	require.NoError(t, err)
	a := r.v1(t, series("a", at(0, 1)))
	require.Equal(t, 503, a.code, "beside a request that still arrives")
	require.Equal(t, "1", a.header.Get("Retry-After"))
	require.Empty(t, r.dump(t))

	require.NoError(t, sender.CloseWithError(errors.New("gone")))
	require.Equal(t, 400, <-answered)
	require.Equal(t, 204, r.v1(t, series("a", at(0, 1))).code)
}

// bombs are bodies of at most 4 MiB that take much more memory.
func bombs(tb testing.TB) (v1, v2 map[string][]byte) {
	const size = 4 << 20
	field := func(num protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
	}
	seriesV1 := func(tail []byte) []byte {
		return field(1, append(field(1, []byte("\n\x08__name__\x12\x01a")), tail...))
	}
	v1 = map[string][]byte{
		"samples":         seriesV1(bytes.Repeat([]byte{0x12, 0}, size/2)),
		"exemplars":       seriesV1(bytes.Repeat([]byte{0x1a, 0}, size/2)),
		"histograms":      seriesV1(bytes.Repeat([]byte{0x22, 0}, size/2)),
		"exemplar labels": seriesV1(field(3, bytes.Repeat([]byte{0x0a, 0}, size/2))),
		"spans":           seriesV1(field(4, bytes.Repeat([]byte{0x42, 0}, size/2))),
		"families":        bytes.Repeat([]byte{0x1a, 3, 0x12, 1, 'f'}, size/5),
	}
	symbols := []string{"", "__name__", "a", string(bytes.Repeat([]byte{'x'}, 500<<10)), string(bytes.Repeat([]byte{'x'}, 60<<10))}
	long, help := &writev2.Request{}, &writev2.Request{}
	for i := range uint32(400) {
		n := uint32(len(symbols))
		symbols = append(symbols, fmt.Sprint("m", i))
		some := []writev2.Sample{{Timestamp: now.UnixMilli()}}
		long.Timeseries = append(long.Timeseries, writev2.TimeSeries{LabelsRefs: []uint32{1, n, 2, 3}, Samples: some})
		help.Timeseries = append(help.Timeseries, writev2.TimeSeries{LabelsRefs: []uint32{1, n}, Samples: some, Metadata: writev2.Metadata{HelpRef: 4}})
	}
	long.Symbols, help.Symbols = symbols, symbols
	return v1, map[string][]byte{
		"symbols":      bytes.Repeat([]byte{0x22, 0}, size/2),
		"series":       bytes.Repeat([]byte{0x2a, 0}, size/2),
		"references":   field(5, field(1, make([]byte, size))),
		"samples":      append([]byte{0x22, 0}, field(5, bytes.Repeat([]byte{0x12, 0}, size/2))...),
		"exemplars":    append([]byte{0x22, 0}, field(5, bytes.Repeat([]byte{0x22, 0}, size/2))...),
		"a long label": marshal(tb, long),
		"a long help":  marshal(tb, help),
	}
}

func TestMemoryOfARequest(t *testing.T) {
	const limit = 16 << 20
	v1, v2 := bombs(t)
	run := func(name, contentType string, body []byte) {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t, func(c *remotewrite.Config) { c.MaxInFlightBytes = limit })
			require.Less(t, len(body), 4<<20+100)
			body = snappy.Encode(nil, body)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			a := r.post(body, "Content-Type", contentType)
			runtime.ReadMemStats(&after)
			require.Equal(t, 413, a.code, a.text)
			require.Contains(t, a.text, "memory")
			require.Less(t, int64(after.TotalAlloc-before.TotalAlloc), int64(3*limit))
			require.Empty(t, r.dump(t))
			require.Equal(t, 204, r.v1(t, series("a", at(0, 1))).code, "what it took was not given back")
		})
	}
	for name, body := range v1 {
		run("1.0, "+name, typeV1, body)
	}
	for name, body := range v2 {
		run("2.0, "+name, typeV2, body)
	}
}

// What senders write stays far from the limits.
func TestMemoryOfUsualRequests(t *testing.T) {
	r := newReceiver(t, func(c *remotewrite.Config) { c.MaxInFlightBytes = 32 << 20 })
	v1, v2 := marshal(t, requestV1(2000, 5, now.UnixMilli()-100_000)), marshal(t, requestV2(2000, 5, now.UnixMilli()-100_000))
	require.Equal(t, 204, r.post(snappy.Encode(nil, v1)).code)
	require.Equal(t, 204, r.post(snappy.Encode(nil, v2), "Content-Type", typeV2).code)
	long := series("long")
	for i := range int64(50_000) {
		long.Samples = append(long.Samples, prompb.Sample{Timestamp: now.UnixMilli() - 100_000 + i, Value: float64(i)})
	}
	require.Equal(t, 204, r.v1(t, long).code)
}

func TestBlownUpBuffersAreDropped(t *testing.T) {
	v1, v2 := bombs(t)
	var d remotewrite.Decoder
	check := func(name string, v2 bool, body []byte) {
		_, _ = d.Decode(&counter{known: map[string]labels.Labels{}}, v2, body, testMaxTime, testMaxLabel)
		require.Less(t, d.Kept(), 8<<20, name)
	}
	for _, name := range []string{"samples", "exemplars"} {
		check(name, false, v1[name])
	}
	for _, name := range []string{"symbols", "series", "references", "samples"} {
		check(name, true, v2[name])
	}
}
