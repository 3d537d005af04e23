// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package sidebyside_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// startSurface starts a stock server and a node alone with the same file and flags.
func startSurface(t *testing.T, yaml string) (stock, node *client.Client) {
	t.Helper()
	flags := []string{"--web.enable-lifecycle", "--web.enable-otlp-receiver", "--web.enable-remote-write-receiver", "--enable-feature=search-api,otlp-native-delta-ingestion"}
	dir := t.TempDir()
	s := harness.Stock(t, local.StockOptions{
		Bin: buildStock(t), Dir: dir, Data: filepath.Join(t.TempDir(), "data"), Config: yaml,
		Flags: append([]string{"--web.enable-admin-api"}, flags...),
	})
	file := filepath.Join(dir, "same.yml")
	require.NoError(t, os.WriteFile(file, []byte(yaml), 0o600))
	c := harness.Prepare(t, local.ClusterOptions{Nodes: 1, Flags: append([]string{"--config.file=" + file}, flags...)})
	harness.Start(t, c)
	stock, node = s.Client(), c.Nodes[0].Client()
	t.Cleanup(stock.Close)
	t.Cleanup(node.Close)
	return stock, node
}

// The federated answers of both are the same in each format.
func TestFederationSideBySide(t *testing.T) {
	stock, node := startSurface(t, "global: {external_labels: {dc: x, zone: z}}")
	at := time.Now().Add(-time.Second).UnixMilli()
	floats := func(v float64, pairs ...string) prompb.TimeSeries {
		return prompb.TimeSeries{Labels: client.Labels(pairs...), Samples: []prompb.Sample{{Timestamp: at - 10_000, Value: v - 1}, {Timestamp: at, Value: v}}}
	}
	histograms := func(h *histogram.Histogram, pairs ...string) prompb.TimeSeries {
		return prompb.TimeSeries{Labels: client.Labels(pairs...), Histograms: []prompb.Histogram{prompb.FromIntHistogram(at, h)}}
	}
	series := []prompb.TimeSeries{
		floats(1, "__name__", "a", "job", "j"),
		floats(2, "__name__", "a", "dc", "own", "instance", "h:1"),
		floats(3, "__name__", "b"),
		floats(4, "__name__", "with.dots", "job", "j"),
		histograms(&histogram.Histogram{
			Schema: 1, Count: 5, Sum: 7, ZeroThreshold: 0.001, ZeroCount: 1,
			PositiveSpans: []histogram.Span{{Offset: 2, Length: 2}}, PositiveBuckets: []int64{2, -1},
			NegativeSpans: []histogram.Span{{Offset: 1, Length: 1}}, NegativeBuckets: []int64{1}, // not empty: see docs/differences.md
		}, "__name__", "b", "job", "native"),
		histograms(&histogram.Histogram{
			CounterResetHint: histogram.GaugeType, Schema: 0, Count: 1, Sum: 1,
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 1}}, PositiveBuckets: []int64{1},
		}, "__name__", "b", "job", "native_gauge"),
		histograms(&histogram.Histogram{
			Schema: histogram.CustomBucketsSchema, Count: 6, Sum: 9, CustomValues: []float64{1, 2, 4},
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 1}, {Offset: 1, Length: 2}}, PositiveBuckets: []int64{1, 1, 1},
		}, "__name__", "c"),
	}
	require.NoError(t, stock.Write(t.Context(), series))
	require.NoError(t, node.Write(t.Context(), series))
	for _, accept := range []string{
		"", "text/plain;version=0.0.4", "text/plain;version=1.0.0;escaping=allow-utf-8", "application/openmetrics-text",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=compact-text",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
	} {
		for _, selectors := range [][]string{{`{__name__=~".+"}`}, {"b", "a", `{job="j"}`}, {"none"}, {"{"}, {}} {
			path := "/federate?" + url.Values{"match[]": selectors}.Encode()
			want, got := ask(t, stock, http.MethodGet, path, accept), ask(t, node, http.MethodGet, path, accept)
			name := accept + " " + strings.Join(selectors, " ")
			require.Equal(t, want.Status, got.Status, name)
			require.Equal(t, want.Header.Get("Content-Type"), got.Header.Get("Content-Type"), name)
			if strings.Contains(accept, "text") { // prototext varies its spaces from one binary to the next
				require.Equal(t, strings.Fields(string(want.Body)), strings.Fields(string(got.Body)), name)
			} else {
				require.Equal(t, string(want.Body), string(got.Body), name)
			}
		}
	}
}

func ask(t *testing.T, c *client.Client, method, path, accept string) *client.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	header := http.Header{"Content-Type": {"application/x-protobuf"}}
	if accept != "" {
		header.Set("Accept", accept)
	}
	resp, err := c.Do(ctx, method, path, header, nil)
	require.NoError(t, err)
	return resp
}

// The same OTLP request makes the same series on both.
func TestOTLPSideBySide(t *testing.T) {
	stock, node := startSurface(t, "otlp: {promote_resource_attributes: [k8s.pod.name], translation_strategy: NoUTF8EscapingWithSuffixes}")
	at := time.Now().Add(-time.Second)
	body, err := otlpRequest(at).MarshalProto()
	require.NoError(t, err)
	var answers []string
	for _, c := range []*client.Client{stock, node} {
		resp, err := c.Do(t.Context(), http.MethodPost, "/api/v1/otlp/v1/metrics", http.Header{"Content-Type": {"application/x-protobuf"}}, body)
		require.NoError(t, err)
		require.NoError(t, resp.Err())
		require.Empty(t, resp.Body)
		got, err := c.Query(t.Context(), `{__name__=~".+"}`, at.UnixMilli())
		require.NoError(t, err)
		require.Greater(t, len(got.Series), 5)
		answers = append(answers, got.String())
	}
	require.ElementsMatch(t, strings.Split(answers[0], "\n"), strings.Split(answers[1], "\n"))
}

func otlpRequest(at time.Time) pmetricotlp.ExportRequest {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "svc")
	rm.Resource().Attributes().PutStr("service.instance.id", "i1")
	rm.Resource().Attributes().PutStr("k8s.pod.name", "p1")
	rm.Resource().Attributes().PutStr("other", "o")
	metrics := rm.ScopeMetrics().AppendEmpty().Metrics()
	now := pcommon.NewTimestampFromTime(at)

	m := metrics.AppendEmpty()
	m.SetName("queue.size")
	m.SetUnit("By")
	p := m.SetEmptyGauge().DataPoints().AppendEmpty()
	p.SetTimestamp(now)
	p.SetIntValue(7)
	p.Attributes().PutStr("a.b", "c")

	m = metrics.AppendEmpty()
	m.SetName("requests")
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	q := sum.DataPoints().AppendEmpty()
	q.SetTimestamp(now)
	q.SetDoubleValue(0.5)

	m = metrics.AppendEmpty()
	m.SetName("latency")
	m.SetUnit("s")
	h := m.SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	d := h.DataPoints().AppendEmpty()
	d.SetTimestamp(now)
	d.ExplicitBounds().FromRaw([]float64{1, 2})
	d.BucketCounts().FromRaw([]uint64{1, 0, 2})
	d.SetCount(3)
	d.SetSum(9)

	m = metrics.AppendEmpty()
	m.SetName("sizes")
	e := m.SetEmptyExponentialHistogram()
	e.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	x := e.DataPoints().AppendEmpty()
	x.SetTimestamp(now)
	x.SetScale(1)
	x.SetCount(3)
	x.SetSum(5)
	x.SetZeroCount(1)
	x.Positive().BucketCounts().FromRaw([]uint64{1, 1})
	return pmetricotlp.NewExportRequestFromMetrics(md)
}

// surfacePaths are asked with every method.
var surfacePaths = []string{
	"/api/v1/query?query=1", "/api/v1/query_range?query=1&start=1&end=2&step=1", "/api/v1/query_exemplars?query=a&start=1&end=2",
	"/api/v1/query_cost?query=1", "/api/v1/format_query?query=a", "/api/v1/parse_query?query=a", "/api/v1/labels", "/api/v1/label/job/values",
	"/api/v1/series?match[]=a", "/api/v1/scrape_pools", "/api/v1/scrape_pools/config?scrapePool=x", "/api/v1/targets",
	"/api/v1/targets/metadata", "/api/v1/targets/relabel_steps?scrapePool=x&labels={}", "/api/v1/alertmanagers", "/api/v1/metadata",
	"/api/v1/status/config", "/api/v1/status/runtimeinfo", "/api/v1/status/buildinfo", "/api/v1/status/flags", "/api/v1/status/tsdb",
	"/api/v1/status/tsdb/blocks", "/api/v1/status/self_metrics", "/api/v1/status/walreplay", "/api/v1/features", "/api/v1/notifications",
	"/api/v1/read", "/api/v1/write", "/api/v1/otlp/v1/metrics", "/api/v1/search/metric_names", "/api/v1/search/label_names",
	"/api/v1/search/label_values?label=job", "/api/v1/alerts", "/api/v1/rules", "/api/v1/admin/tsdb/delete_series?match[]=a",
	"/api/v1/admin/tsdb/clean_tombstones", "/api/v1/admin/tsdb/snapshot", "/api/v1/openapi.yaml", "/api/v1/nothing",
	"/graph", "/version", "/metrics", "/federate?match[]=a", "/consoles/none.html", "/user/none", "/-/healthy", "/-/ready", "/-/reload",
	"/debug/pprof/", "/debug/pprof", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/other", "/nothing",
}

// differentMethods are the differences that docs/differences.md has.
var differentMethods = map[string]bool{"DELETE /api/v1/admin/tsdb/delete_series?match[]=a": true}

// Both answer each path and method with the same status.
func TestRoutesSideBySide(t *testing.T) {
	stock, node := startSurface(t, "")
	for _, c := range []*client.Client{stock, node} { // the search of an empty stock server panics
		require.NoError(t, c.Write(t.Context(), []prompb.TimeSeries{{
			Labels: client.Labels("__name__", "s"), Samples: []prompb.Sample{{Timestamp: time.Now().UnixMilli(), Value: 1}},
		}}))
	}
	direct := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	stock.HTTP.CheckRedirect, node.HTTP.CheckRedirect = direct, direct
	for _, path := range surfacePaths {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"} {
			if differentMethods[method+" "+path] || method == "HEAD" && !strings.HasPrefix(path, "/-/") {
				continue
			}
			want, got := ask(t, stock, method, path, ""), ask(t, node, method, path, "")
			assert.Equal(t, want.Status, got.Status, "%s %s\n%s\n%s", method, path, want.Body, got.Body)
			assert.Equal(t, want.Header.Get("Location"), got.Header.Get("Location"), "%s %s", method, path)
		}
	}
}
