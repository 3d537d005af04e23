// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/monitor"
)

// instrumented is a target with a native histogram and exemplars, as client_golang exposes them.
func instrumented() http.Handler {
	registry := prometheus.NewRegistry()
	requests := prometheus.NewCounter(prometheus.CounterOpts{Name: "requests_total", Help: "Requests."})
	latency := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "latency_seconds", Help: "Latency.", NativeHistogramBucketFactor: 1.1})
	registry.MustRegister(requests, latency)
	requests.(prometheus.ExemplarAdder).AddWithExemplar(3, prometheus.Labels{"trace_id": "abc"})
	for i := range 7 {
		latency.Observe(float64(i))
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true, Registry: registry})
}

const dataConfig = `
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
- {job_name: plain, proxy_url: URL, static_configs: [{targets: ["plain.test:80"]}]}
- {job_name: honest, proxy_url: URL, honor_labels: true, static_configs: [{targets: ["honest.test:80"]}]}
- {job_name: ours, proxy_url: URL, honor_timestamps: false, static_configs: [{targets: ["ours.test:80"]}]}
- {job_name: limited, proxy_url: URL, sample_limit: 1, static_configs: [{targets: ["limited.test:80"]}]}
- {job_name: native, proxy_url: URL, scrape_native_histograms: true, extra_scrape_metrics: true, static_configs: [{targets: ["native.test:80"]}]}
`

// What a scrape brings is on every node, as Prometheus would have it.
func TestScrapedDataIsOnAllNodes(t *testing.T) {
	t.Parallel()
	f := newFarm(t)
	native := instrumented()
	then := time.Now().Add(-time.Minute).UnixMilli()
	ancient := time.Now().Add(-3 * time.Hour).UnixMilli() // it is left out, and the rest of the scrape is not
	f.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Host == "native.test:80" {
			native.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintf(w, "# HELP m Help of m.\n# TYPE m gauge\nm{job=\"theirs\"} 1\nancient 3 %d\nold 2 %d\n", ancient, then)
	}
	nodes := startScrapers(t, monitor.ShardSpread, fsm.Settings{MaxExemplars: 100}, strings.ReplaceAll(dataConfig, "URL", f.URL))
	for _, n := range nodes {
		n.requireSeries("m", map[string]string{
			`{__name__="m", exported_job="theirs", instance="plain.test:80", job="plain"}`: "1",
			`{__name__="m", instance="honest.test:80", job="theirs"}`:                      "1",
			`{__name__="m", exported_job="theirs", instance="ours.test:80", job="ours"}`:   "1",
		})
		n.requireSeries("up", map[string]string{
			`{__name__="up", instance="plain.test:80", job="plain"}`:     "1",
			`{__name__="up", instance="honest.test:80", job="honest"}`:   "1",
			`{__name__="up", instance="ours.test:80", job="ours"}`:       "1",
			`{__name__="up", instance="limited.test:80", job="limited"}`: "0",
			`{__name__="up", instance="native.test:80", job="native"}`:   "1",
		})
		n.requireSeries("scrape_samples_scraped", map[string]string{
			`{__name__="scrape_samples_scraped", instance="limited.test:80", job="limited"}`: "3",
		})
		n.requireSeries("scrape_timeout_seconds", map[string]string{
			`{__name__="scrape_timeout_seconds", instance="native.test:80", job="native"}`: "1",
		})
		n.requireSeries("latency_seconds", map[string]string{
			`{__name__="latency_seconds", instance="native.test:80", job="native"}`: "histogram of 7",
		})
		require.Len(t, n.samples("old")[`{__name__="old", instance="plain.test:80", job="plain"}`], 1, "one timestamp, one sample")
		require.Eventually(t, func() bool {
			return len(n.samples("old")[`{__name__="old", instance="ours.test:80", job="ours"}`]) > 1
		}, patience, 50*time.Millisecond)
		require.Contains(t, n.fsm.MetricMetadata()["m"], metadata.Metadata{Type: model.MetricTypeGauge, Help: "Help of m."})
		created := n.samples("requests_total")[`{__name__="requests_total", instance="native.test:80", job="native"}`]
		require.Equal(t, []string{"0", "3"}, created[:2], "the counter began at its created timestamp")
		n.requireExemplar("requests_total", "abc")
	}
}

// requireSeries waits until each of the series has the value as its newest.
func (n *scrapeNode) requireSeries(name string, want map[string]string) {
	n.t.Helper()
	got := map[string]string{}
	ok := func() bool {
		clear(got)
		for series, values := range n.samples(name) {
			got[series] = values[len(values)-1]
		}
		for series := range want {
			if got[series] != want[series] {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			require.Equal(n.t, want, maps.Clone(got), "node %s", n.ID())
		}
	}
}

func (n *scrapeNode) requireExemplar(name, trace string) {
	n.t.Helper()
	require.Eventually(n.t, func() bool {
		q, err := n.fsm.ExemplarQuerier(context.Background())
		require.NoError(n.t, err)
		found, err := q.Select(0, 1<<50, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", name)})
		require.NoError(n.t, err)
		return len(found) == 1 && found[0].Exemplars[0].Labels.Get("trace_id") == trace
	}, patience, 50*time.Millisecond, "node %s", n.ID())
}
