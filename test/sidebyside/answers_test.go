// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package sidebyside_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
)

// delivery is a request with a body that both are to take.
type delivery struct {
	request
	header map[string]string
	body   []byte
}

// answerHeaders are those of an answer that clients go by.
var answerHeaders = []string{
	"Content-Type", "X-Prometheus-Remote-Write-Samples-Written", "X-Prometheus-Remote-Write-Histograms-Written",
	"X-Prometheus-Remote-Write-Exemplars-Written",
}

// Requests with bodies that succeed, and what changes the server: status, headers and form of the answer are the same.
func TestDeliveriesSideBySide(t *testing.T) {
	stock, node := startSurface(t, "")
	for _, d := range deliveries(t, time.Now().Add(-time.Second)) {
		header := http.Header{}
		for k, v := range d.header {
			header.Set(k, v)
		}
		want, err := stock.Do(t.Context(), d.method, d.path, header, d.body)
		require.NoError(t, err)
		got, err := node.Do(t.Context(), d.method, d.path, header, d.body)
		require.NoError(t, err)
		require.Equal(t, 2, want.Status/100, "%s: %s", d, want.Body)
		require.NoError(t, d.compare(want, got), d.String())
		for _, h := range answerHeaders {
			require.Equal(t, want.Header.Get(h), got.Header.Get(h), "%s: %s", d, h)
		}
		if strings.HasSuffix(d.path, "/read") {
			require.Equal(t, want.Header.Get("Content-Encoding"), got.Header.Get("Content-Encoding"), d.String())
			require.Equal(t, want.Body, got.Body, d.String())
		}
	}
}

func deliveries(t *testing.T, at time.Time) []delivery {
	t.Helper()
	v1, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:    client.Labels("__name__", "one", "job", "j"),
		Samples:   []prompb.Sample{{Timestamp: at.UnixMilli(), Value: 1}},
		Exemplars: []prompb.Exemplar{{Labels: client.Labels("trace_id", "t"), Value: 1, Timestamp: at.UnixMilli()}},
	}}}).Marshal()
	require.NoError(t, err)
	v2, err := (&writev2.Request{
		Symbols: []string{"", "__name__", "two", "help"},
		Timeseries: []writev2.TimeSeries{{
			LabelsRefs: []uint32{1, 2}, Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: 3},
			Samples: []writev2.Sample{{Timestamp: at.UnixMilli(), Value: 2}},
		}},
	}).Marshal()
	require.NoError(t, err)
	otlp, err := otlpRequest(at).MarshalProto()
	require.NoError(t, err)
	read := func(accept ...prompb.ReadRequest_ResponseType) []byte {
		b, err := (&prompb.ReadRequest{
			Queries: []*prompb.Query{{
				StartTimestampMs: at.UnixMilli() - 1000, EndTimestampMs: at.UnixMilli() + 1000,
				Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: "one|two"}},
			}},
			AcceptedResponseTypes: accept,
		}).Marshal()
		require.NoError(t, err)
		return snappy.Encode(nil, b)
	}
	const proto = "application/x-protobuf"
	remote := func(kind string) map[string]string {
		return map[string]string{"Content-Type": kind, "Content-Encoding": "snappy"}
	}
	post := func(path string) request { return request{method: http.MethodPost, path: path} }
	return []delivery{
		{post("/api/v1/write"), remote(proto), snappy.Encode(nil, v1)},
		{post("/api/v1/write"), remote(proto + ";proto=io.prometheus.write.v2.Request"), snappy.Encode(nil, v2)},
		{post("/api/v1/otlp/v1/metrics"), map[string]string{"Content-Type": proto}, otlp},
		{post("/api/v1/read"), remote(proto), read()},
		{post("/api/v1/read"), remote(proto), read(prompb.ReadRequest_STREAMED_XOR_CHUNKS)},
		{post("/api/v1/admin/tsdb/snapshot"), nil, nil},
		{request{method: http.MethodPut, path: "/api/v1/admin/tsdb/snapshot?skip_head=true"}, nil, nil},
		{post("/api/v1/admin/tsdb/delete_series?match[]=two"), nil, nil},
		{request{method: http.MethodPut, path: "/api/v1/admin/tsdb/delete_series?match[]=two&start=1&end=2"}, nil, nil},
		{post("/api/v1/admin/tsdb/clean_tombstones"), nil, nil},
		{request{method: http.MethodPut, path: "/api/v1/admin/tsdb/clean_tombstones"}, nil, nil},
		{request{method: http.MethodGet, path: "/api/v1/status/tsdb"}, nil, nil},
	}
}

// Both tell of a failed reload and of one that succeeds again in the same form, those who ask and those who listen.
func TestNotificationsSideBySide(t *testing.T) {
	rules := t.TempDir()
	bad := filepath.Join(rules, "bad.yml")
	stock, node := startSurface(t, fmt.Sprintf("rule_files: [%q]", filepath.Join(rules, "*.yml")))
	var lists, streams []string
	for _, c := range []*client.Client{stock, node} {
		list := func() (found []notification) {
			require.NoError(t, c.Data(t.Context(), "/api/v1/notifications", nil, &found))
			return found
		}
		require.Eventually(t, func() bool { return len(list()) == 0 }, time.Minute, 20*time.Millisecond, "it has started")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+"/api/v1/notifications/live", nil)
		require.NoError(t, err)
		live, err := c.HTTP.Do(req)
		require.NoError(t, err)
		defer live.Body.Close()
		lines := bufio.NewScanner(live.Body)
		seen := fmt.Sprintln(live.StatusCode, live.Header.Get("Content-Type"), live.Header.Get("Cache-Control"))
		next := func() {
			for range 2 { // the event and an empty line
				require.True(t, lines.Scan(), "the stream has ended: %v", lines.Err())
				seen += anyDate.ReplaceAllString(lines.Text(), "DATE") + "\n"
			}
		}
		require.NoError(t, os.WriteFile(bad, []byte("nonsense"), 0o600))
		require.Equal(t, 500, ask(t, c, http.MethodPost, "/-/reload", "").Status)
		next()
		lists = append(lists, anyDate.ReplaceAllString(string(ask(t, c, http.MethodGet, "/api/v1/notifications", "").Body), "DATE"))
		require.NoError(t, os.Remove(bad))
		require.Equal(t, 200, ask(t, c, http.MethodPost, "/-/reload", "").Status)
		next()
		require.Empty(t, list())
		streams = append(streams, seen)
	}
	require.Equal(t, lists[0], lists[1])
	require.Equal(t, streams[0], streams[1])
}

type notification struct{ Text string }

var anyDate = regexp.MustCompile(`\d{4}-\d\d-\d\dT[^"]+`)
