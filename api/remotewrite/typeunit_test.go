// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite_test

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api/remotewrite"
)

// With the feature type-and-unit-labels series get the labels that Prometheus's receiver gives them.
func TestTypeAndUnitLabels(t *testing.T) {
	const counter = writev2.Metadata_METRIC_TYPE_COUNTER
	symbols := []string{"", "__name__", "__type__", "__unit__", "z", "gauge", "bytes", "seconds", "help", "a", "b", "c", "d", "e", "f", "g"}
	refs := func(name uint32, more ...uint32) []uint32 { return append([]uint32{1, name}, more...) }
	req := &writev2.Request{Symbols: symbols}
	for _, ts := range []writev2.TimeSeries{
		{LabelsRefs: refs(9, 4, 4), Metadata: writev2.Metadata{Type: counter, UnitRef: 7}},
		{LabelsRefs: refs(10, 2, 5, 3, 6, 4, 4), Metadata: writev2.Metadata{Type: counter, UnitRef: 7}}, // the sender's labels differ
		{LabelsRefs: refs(11, 2, 5, 3, 6), Metadata: writev2.Metadata{UnitRef: 7}},                      // no type: the sender's goes too
		{LabelsRefs: refs(12, 2, 5, 3, 6), Metadata: writev2.Metadata{Type: counter}},
		{LabelsRefs: refs(13, 2, 5, 3, 6), Metadata: writev2.Metadata{HelpRef: 8}}, // neither: the sender's stay
		{LabelsRefs: refs(14)},
		{LabelsRefs: refs(15, 2, 5, 2, 6), Metadata: writev2.Metadata{Type: counter}}, // twice, and replaced
	} {
		ts.Samples = []writev2.Sample{{Timestamp: now.UnixMilli(), Value: 1}}
		req.Timeseries = append(req.Timeseries, ts)
	}
	body := snappy.Encode(nil, marshal(t, req))

	stock := teststorage.New(t)
	handler := remote.NewWriteHandler(slog.New(slog.DiscardHandler), nil, stock, remoteapi.MessageTypes{remoteapi.WriteV2MessageType}, false, true, false)
	r := httptest.NewRequest("POST", "/api/v1/write", bytes.NewReader(body))
	r.Header.Set("Content-Encoding", "snappy")
	r.Header.Set("Content-Type", typeV2)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	require.Equal(t, 204, w.Code, w.Body)
	q, err := stock.Querier(now.UnixMilli(), now.UnixMilli())
	require.NoError(t, err)
	defer q.Close()
	var want strings.Builder
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*"))
	for set.Next() {
		want.WriteString(set.At().Labels().String() + " 0 1\n")
	}
	require.NoError(t, set.Err())

	on := newReceiver(t, func(c *remotewrite.Config) { c.TypeAndUnitLabels = true })
	for range 2 { // with a cold and a warm cache of keys
		a := on.post(body, "Content-Type", typeV2)
		require.Equal(t, 204, a.code, a.text)
		require.Equal(t, want.String(), on.dump(t))
	}
	require.Contains(t, want.String(), `{__name__="b", __type__="counter", __unit__="seconds", z="z"}`)

	off := newReceiver(t, nil)
	off.post(body, "Content-Type", typeV2)
	require.Contains(t, off.dump(t), `{__name__="b", __type__="gauge", __unit__="bytes", z="z"}`)
}

// Many series may refer to one long unit.
func TestTypeAndUnitLabelsAreBounded(t *testing.T) {
	r := newReceiver(t, func(c *remotewrite.Config) { c.TypeAndUnitLabels, c.MaxLabelBytes = true, 100 })
	req := requestV2(1, 1, now.UnixMilli())
	req.Symbols = append(req.Symbols[:0:0], "", "__name__", "m", strings.Repeat("u", 101))
	req.Timeseries[0].LabelsRefs, req.Timeseries[0].Metadata = []uint32{1, 2}, writev2.Metadata{UnitRef: 3}
	a := r.post(snappy.Encode(nil, marshal(t, req)), "Content-Type", typeV2)
	require.Equal(t, 400, a.code)
	require.Contains(t, a.text, "labels of series m are too long")
}
