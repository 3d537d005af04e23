// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/api/internal/solo"
	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/monitor"
)

// clockSender sends a sample of that time by one protocol.
type clockSender func(t *testing.T, i *instance, name string, at time.Time) answer

func senders() map[string]clockSender {
	post := func(t *testing.T, i *instance, body []byte, err error, contentType string) answer {
		require.NoError(t, err)
		return i.do(http.MethodPost, "/api/v1/write", string(snappy.Encode(nil, body)), "Content-Type", contentType, "Content-Encoding", "snappy")
	}
	const v1, v2 = "application/x-protobuf", "application/x-protobuf;proto=io.prometheus.write.v2.Request"
	h := &histogram.Histogram{Count: 1, Sum: 1, ZeroCount: 1}
	return map[string]clockSender{
		"remote write 1": func(t *testing.T, i *instance, name string, at time.Time) answer {
			r := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
				{Labels: []prompb.Label{{Name: "__name__", Value: name}}, Samples: []prompb.Sample{{Timestamp: at.UnixMilli(), Value: 1}}},
			}}
			body, err := r.Marshal()
			return post(t, i, body, err, v1)
		},
		"remote write 1, histogram": func(t *testing.T, i *instance, name string, at time.Time) answer {
			r := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
				{Labels: []prompb.Label{{Name: "__name__", Value: name}}, Histograms: []prompb.Histogram{prompb.FromIntHistogram(at.UnixMilli(), h)}},
			}}
			body, err := r.Marshal()
			return post(t, i, body, err, v1)
		},
		"remote write 2": func(t *testing.T, i *instance, name string, at time.Time) answer {
			r := &writev2.Request{Symbols: []string{"", "__name__", name}, Timeseries: []writev2.TimeSeries{
				{LabelsRefs: []uint32{1, 2}, Samples: []writev2.Sample{{Timestamp: at.UnixMilli(), Value: 1}}},
			}}
			body, err := r.Marshal()
			return post(t, i, body, err, v2)
		},
		"remote write 2, histogram": func(t *testing.T, i *instance, name string, at time.Time) answer {
			r := &writev2.Request{Symbols: []string{"", "__name__", name}, Timeseries: []writev2.TimeSeries{
				{LabelsRefs: []uint32{1, 2}, Histograms: []writev2.Histogram{writev2.FromIntHistogram(0, at.UnixMilli(), h)}},
			}}
			body, err := r.Marshal()
			return post(t, i, body, err, v2)
		},
		"OTLP": func(t *testing.T, i *instance, name string, at time.Time) answer {
			return i.sendOTLP(t, point(name, at, 1, pmetric.AggregationTemporalityCumulative))
		},
	}
}

// What is in the future by one clock and not by the other may come again; what is in it by both is refused for good.
func TestFutureByTwoClocks(t *testing.T) {
	for name, send := range senders() {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t, func(c *api.Config) {
				c.EnableOTLP = true
				c.Appendable = monitor.NewAppendable(monitor.AppendableOptions{
					FSM: c.FSM, Proposer: c.Cluster, Clock: c.Cluster.(monitor.Clock), Registerer: prometheus.NewRegistry(),
				}).ForClients()
			})
			for _, by := range []time.Duration{2 * time.Hour, -2 * time.Hour} {
				i.Set(solo.State{ClockOffset: by, ReadyErr: cluster.ErrClockOff})
				disputed := time.Now().Add(max(by, 0) + cluster.MaxAhead - time.Minute)
				a := send(t, i, "disputed", disputed)
				require.Equal(t, 503, a.code, a.text)
				require.Equal(t, "1", a.header.Get("Retry-After"))
				require.Contains(t, a.text, "clock of this node is wrong")
				require.Empty(t, i.series(t, `{__name__=~"disputed.*"}`))

				a = send(t, i, "future", disputed.Add(2*time.Minute))
				if name != "OTLP" { // Prometheus's receiver does not tell which of its refusals it is
					require.Equal(t, 400, a.code, a.text)
					require.Contains(t, a.text, "out of bounds")
				}

				i.Set(solo.State{})
				a = send(t, i, "now", time.Now())
				require.Less(t, a.code, 300, a.text)
			}
			require.Len(t, i.series(t, `{__name__=~"now.*"}`), 1)
			require.Empty(t, i.series(t, `{__name__=~"future.*|disputed.*"}`))
		})
	}
}

// A request is taken as a whole, or comes again as a whole.
func TestDisputedRequestLeavesNothing(t *testing.T) {
	i := newInstance(t, nil)
	i.Set(solo.State{ClockOffset: time.Hour})
	sample := func(name string, ahead time.Duration) prompb.TimeSeries {
		return prompb.TimeSeries{
			Labels:  []prompb.Label{{Name: "__name__", Value: name}},
			Samples: []prompb.Sample{{Timestamp: time.Now().Add(ahead).UnixMilli(), Value: 1}},
		}
	}
	r := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{sample("a", 0), sample("b", 30*time.Minute), sample("c", 3*time.Hour)}}
	body, err := r.Marshal()
	require.NoError(t, err)
	a := i.do(http.MethodPost, "/api/v1/write", string(snappy.Encode(nil, body)), "Content-Encoding", "snappy")
	require.Equal(t, 503, a.code, a.text)
	require.Empty(t, i.series(t, `{__name__=~"a|b|c"}`))
	i.Set(solo.State{})
	a = i.do(http.MethodPost, "/api/v1/write", string(snappy.Encode(nil, body)), "Content-Encoding", "snappy")
	require.Equal(t, 400, a.code, a.text)
	require.Len(t, i.series(t, `{__name__=~"a|b|c"}`), 1)
}
