// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api/internal/solo"
	"github.com/deucaliondb/deucalion/api/remotewrite"
	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

const (
	typeV1 = "application/x-protobuf"
	typeV2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
)

// now is the receiver's clock in these tests.
var now = time.UnixMilli(1_700_000_000_000)

type receiver struct {
	*solo.Node
	handler http.Handler
}

func newReceiver(tb testing.TB, change func(*remotewrite.Config)) *receiver {
	tb.Helper()
	n := solo.New(tb, fsm.Settings{MaxExemplars: 1000})
	cfg := remotewrite.Config{
		NewBatch: func() remotewrite.Batch { return n.FSM.NewBatch() }, Proposer: n, NodeID: n.ID(),
		Newest:     func() (sure, never time.Time) { return now.Add(cluster.MaxAhead), now.Add(cluster.MaxAhead) },
		Registerer: prometheus.NewRegistry(),
	}
	if change != nil {
		change(&cfg)
	}
	return &receiver{n, remotewrite.New(cfg)}
}

type answer struct {
	code   int
	header http.Header
	text   string
}

func (r *receiver) post(body []byte, header ...string) answer {
	req := httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(body))
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", typeV1)
	for i := 0; i < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
		} else {
			req.Header.Set(header[i], header[i+1])
		}
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	text, _ := io.ReadAll(w.Body)
	return answer{w.Code, w.Header(), string(text)}
}

func (r *receiver) v1(tb testing.TB, series ...prompb.TimeSeries) answer {
	tb.Helper()
	return r.post(snappy.Encode(nil, marshal(tb, &prompb.WriteRequest{Timeseries: series})))
}

// dump lists all that is stored, a line for each sample.
func (r *receiver) dump(tb testing.TB) string {
	tb.Helper()
	q, err := r.FSM.Querier(math.MinInt64/2, math.MaxInt64/2)
	require.NoError(tb, err)
	defer q.Close()
	var b strings.Builder
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*"))
	var it chunkenc.Iterator
	for set.Next() {
		it = set.At().Iterator(it)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			switch typ {
			case chunkenc.ValFloat:
				t, v := it.At()
				fmt.Fprintf(&b, "%s %d %g\n", set.At().Labels(), t-now.UnixMilli(), v)
			default:
				t, fh := it.AtFloatHistogram(nil)
				fmt.Fprintf(&b, "%s %d %s count %g\n", set.At().Labels(), t-now.UnixMilli(), typ, fh.Count)
			}
		}
		require.NoError(tb, it.Err())
	}
	require.NoError(tb, set.Err())
	return b.String()
}

func series(name string, samples ...prompb.Sample) prompb.TimeSeries {
	return prompb.TimeSeries{Labels: pbLabels("__name__", name), Samples: samples}
}

// at is a sample ms after the receiver's now.
func at(ms int64, v float64) prompb.Sample {
	return prompb.Sample{Timestamp: now.UnixMilli() + ms, Value: v}
}

func TestNegotiation(t *testing.T) {
	good := snappy.Encode(nil, marshal(t, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{series("a", at(0, 1))}}))
	goodV2 := snappy.Encode(nil, marshal(t, requestV2(1, 1, now.UnixMilli())))
	onlyV2 := func(c *remotewrite.Config) { c.Accept = remoteapi.MessageTypes{remoteapi.WriteV2MessageType} }
	for name, tc := range map[string]struct {
		change func(*remotewrite.Config)
		body   []byte
		header []string
		code   int
		text   string
	}{
		"v1":                      {nil, good, nil, 204, ""},
		"v2":                      {nil, goodV2, []string{"Content-Type", typeV2}, 204, ""},
		"v1 by its name":          {nil, good, []string{"Content-Type", typeV1 + ";proto=prometheus.WriteRequest"}, 204, ""},
		"no headers":              {nil, good, []string{"Content-Type", "", "Content-Encoding", ""}, 204, ""},
		"unknown type":            {nil, good, []string{"Content-Type", "application/json"}, 415, "expected application/x-protobuf as the first (media) part"},
		"unknown message":         {nil, good, []string{"Content-Type", typeV1 + ";proto=x.Y"}, 415, "unknown type for remote write protobuf message"},
		"bad parameter":           {nil, good, []string{"Content-Type", typeV1 + ";proto"}, 415, "expected parameters to be key-values"},
		"unknown encoding":        {nil, good, []string{"Content-Encoding", "zstd"}, 415, "zstd encoding (compression) is not accepted"},
		"message not accepted":    {onlyV2, good, nil, 415, "protobuf message is not accepted by this server"},
		"not snappy":              {nil, []byte("\xff\xff\xff\xff\xff\xffplain"), nil, 400, "snappy"},
		"cut snappy":              {nil, good[:len(good)-1], nil, 400, "snappy"},
		"broken protobuf":         {nil, snappy.Encode(nil, []byte{0x0a, 0x7f}), nil, 400, "malformed protobuf"},
		"v2 as v1":                {nil, goodV2, nil, 204, ""}, // has no fields in common: an empty request
		"broken v2":               {nil, snappy.Encode(nil, []byte{0x2a, 0x7f}), []string{"Content-Type", typeV2}, 400, "malformed protobuf"},
		"v2 without empty symbol": {nil, snappy.Encode(nil, []byte{0x22, 0x01, 'x'}), []string{"Content-Type", typeV2}, 400, "the first symbol must be the empty string"},
		"empty":                   {nil, snappy.Encode(nil, nil), nil, 204, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := newReceiver(t, tc.change).post(tc.body, tc.header...)
			require.Equal(t, tc.code, a.code, a.text)
			require.Contains(t, a.text, tc.text)
			require.Equal(t, "solo", a.header.Get("X-Deucalion-Node"))
		})
	}
}

func TestBodyLimits(t *testing.T) {
	r := newReceiver(t, func(c *remotewrite.Config) { c.MaxBodyBytes = 1000 })
	require.Equal(t, 204, r.v1(t, series("a", at(0, 1))).code)
	zeros := snappy.Encode(nil, make([]byte, 20000)) // tiny on the wire
	require.Less(t, len(zeros), 1100)
	for name, body := range map[string][]byte{
		"compressed":        make([]byte, 1001),
		"decoded":           zeros[:900],
		"declared, a bluff": {0xff, 0xff, 0xff, 0x7f, 0x00},
	} {
		a := r.post(body)
		require.Equal(t, http.StatusRequestEntityTooLarge, a.code, name)
		a = r.post(body, "Content-Type", typeV2)
		require.Equal(t, "0", a.header.Get("X-Prometheus-Remote-Write-Samples-Written"), name)
	}
}

func TestCommitFailureIsRetryable(t *testing.T) {
	r := newReceiver(t, nil)
	r.Set(solo.State{ProposeErr: errors.New("no leader")})
	a := r.v1(t, series("a", at(0, 1)))
	require.Equal(t, 503, a.code)
	require.Equal(t, "1", a.header.Get("Retry-After"))
	r.Set(solo.State{})
	require.Equal(t, 204, r.v1(t, series("a", at(0, 1))).code)
	require.Equal(t, "{__name__=\"a\"} 0 1\n", r.dump(t))
}
