// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package exemplars_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

func TestMain(m *testing.M) { harness.Main(m) }

// trailing is how many entries a node that has just started keeps behind a snapshot, with some to spare.
const trailing = 1300

func TestExemplarsAndMetadata(t *testing.T) {
	c := harness.New(t)
	a, b, late := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	require.NoError(t, late.Stop())
	harness.Leader(t, c)

	now := time.Now().UnixMilli() - 60_000
	sendV1(t, a, now)
	sendV2(t, b, now)
	requireState(t, now, "written", a, b)

	// A second snapshot lets go of the log before the first one: then nobody can bring the late node up to date by
	// entries.
	for range 2 {
		fillLog(t, a)
		for _, n := range []*local.Server{a, b} {
			require.NoError(t, n.Stop())
			require.NoError(t, n.Start())
			harness.WaitReady(t, n)
		}
		harness.Leader(t, c)
	}
	requireState(t, now, "after graceful restarts", a, b)

	harness.Start(t, c)
	cl := late.Client()
	defer cl.Close()
	m, err := cl.Metrics(t.Context())
	require.NoError(t, err)
	require.NotZero(t, m.Sum("deucalion_raft_snapshot_installs_total"), "the late node was brought up to date by entries: nothing is proved")
	requireState(t, now, "after a snapshot was installed", late)

	for _, n := range c.Nodes {
		require.NoError(t, n.Kill())
	}
	harness.Start(t, c)
	requireState(t, now, "after kill -9 of all", c.Nodes...)
}

// sendV1 sends two exemplars of one series, and metadata, by remote write 1.0.
func sendV1(t *testing.T, n *local.Server, now int64) {
	t.Helper()
	one := prompb.TimeSeries{
		Labels:  client.Labels("__name__", "v1_total", "job", "x"),
		Samples: []prompb.Sample{{Timestamp: now, Value: 1}},
		Exemplars: []prompb.Exemplar{
			{Labels: client.Labels("trace_id", "v1-a"), Value: 1, Timestamp: now},
			{Labels: client.Labels("trace_id", "v1-b"), Value: 2, Timestamp: now + 1000},
		},
	}
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{one}}).Marshal()
	require.NoError(t, err)
	post(t, n, raw, "application/x-protobuf", "0.1.0")
	// Senders put metadata into requests of their own.
	raw, err = (&prompb.WriteRequest{Metadata: []prompb.MetricMetadata{
		{MetricFamilyName: "v1_total", Type: prompb.MetricMetadata_COUNTER, Help: "by version 1", Unit: "bytes"},
	}}).Marshal()
	require.NoError(t, err)
	post(t, n, raw, "application/x-protobuf", "0.1.0")
}

// sendV2 sends one exemplar with metadata by remote write 2.0.
func sendV2(t *testing.T, n *local.Server, now int64) {
	t.Helper()
	raw, err := (&writev2.Request{
		Symbols: []string{"", "__name__", "v2_seconds", "job", "x", "trace_id", "v2-a", "by version 2", "seconds"},
		Timeseries: []writev2.TimeSeries{{
			LabelsRefs: []uint32{1, 2, 3, 4},
			Samples:    []writev2.Sample{{Timestamp: now, Value: 1}},
			Exemplars:  []writev2.Exemplar{{LabelsRefs: []uint32{5, 6}, Value: 3, Timestamp: now}},
			Metadata:   writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: 7, UnitRef: 8},
		}},
	}).Marshal()
	require.NoError(t, err)
	post(t, n, raw, "application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0")
}

func post(t *testing.T, n *local.Server, raw []byte, contentType, version string) {
	t.Helper()
	cl := n.Client()
	defer cl.Close()
	resp, err := cl.Do(t.Context(), http.MethodPost, "/api/v1/write", http.Header{
		"Content-Encoding": {"snappy"}, "Content-Type": {contentType}, "X-Prometheus-Remote-Write-Version": {version},
	}, snappy.Encode(nil, raw))
	require.NoError(t, err)
	require.NoError(t, resp.Err())
}

// fillLog writes many small entries.
func fillLog(t *testing.T, n *local.Server) {
	t.Helper()
	cl := n.Client()
	defer cl.Close()
	start := time.Now().UnixMilli()
	g, ctx := errgroup.WithContext(t.Context())
	const writers = 16
	for w := range writers {
		g.Go(func() error {
			for i := range trailing / writers {
				err := cl.Write(ctx, []prompb.TimeSeries{{
					Labels:  client.Labels("__name__", "filler", "w", fmt.Sprint(w)),
					Samples: []prompb.Sample{{Timestamp: start + int64(i), Value: 1}},
				}})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
}

// requireState insists that each node answers with all exemplars and metadata.
func requireState(t *testing.T, now int64, when string, nodes ...*local.Server) {
	t.Helper()
	s := func(ms int64) string { return client.Seconds(ms) }
	exemplars := `[
		{"seriesLabels": {"__name__": "v1_total", "job": "x"}, "exemplars": [
			{"labels": {"trace_id": "v1-a"}, "value": "1", "timestamp": ` + s(now) + `},
			{"labels": {"trace_id": "v1-b"}, "value": "2", "timestamp": ` + s(now+1000) + `}]},
		{"seriesLabels": {"__name__": "v2_seconds", "job": "x"}, "exemplars": [
			{"labels": {"trace_id": "v2-a"}, "value": "3", "timestamp": ` + s(now) + `}]}]`
	metadata := `{
		"v1_total": [{"type": "counter", "help": "by version 1", "unit": "bytes"}],
		"v2_seconds": [{"type": "gauge", "help": "by version 2", "unit": "seconds"}]}`
	for _, n := range nodes {
		await(t, n, when, "/api/v1/query_exemplars", url.Values{
			"query": {`{job="x"}`}, "start": {s(now - 60_000)}, "end": {s(now + 60_000)},
		}, exemplars)
		await(t, n, when, "/api/v1/metadata", nil, metadata)
	}
}

// await asks a node at level linearizable, so that one answer must do; it asks again only while there is none.
func await(t *testing.T, n *local.Server, when, path string, params url.Values, want string) {
	t.Helper()
	cl := n.Client().At(client.Linearizable)
	defer cl.Close()
	var expected, got any
	require.NoError(t, json.Unmarshal([]byte(want), &expected))
	harness.Await(t, 60*time.Second, path+" of "+n.Name+" "+when, func(ctx context.Context) error {
		got = nil
		return cl.Data(ctx, path, params, &got)
	})
	require.True(t, reflect.DeepEqual(expected, got), "%s of %s %s: want %v, got %v", path, n.Name, when, expected, got)
}
