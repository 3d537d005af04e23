// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package sidebyside_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// exporters are what both servers scrape. Their values are functions of the time or constant, so that it does not
// matter who asks first.
type exporters struct {
	plain, rich, text, broken string       // host:port
	ended                     *atomic.Bool // whether short_lived has
}

func startExporters(t *testing.T) exporters {
	t.Helper()
	began := time.Now()
	serve := func(h http.Handler) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	ended := &atomic.Bool{}
	return exporters{
		ended: ended,
		plain: serve(plain(began)),
		rich:  serve(rich()),
		text:  serve(text(ended)),
		broken: serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "broken", http.StatusInternalServerError)
		})),
	}
}

// plain has a counter that rises by one a second, gauges and a summary.
func plain(began time.Time) http.Handler {
	reg := prometheus.NewRegistry()
	f := promauto.With(reg)
	f.NewCounterFunc(prometheus.CounterOpts{Name: "demo_seconds_total", Help: "Seconds since the start."},
		func() float64 { return time.Since(began).Seconds() })
	g := f.NewGaugeVec(prometheus.GaugeOpts{Name: "demo_temperature_celsius", Help: "Constant."}, []string{"room", "floor"})
	for i := range 20 {
		g.WithLabelValues(fmt.Sprint("room ", i), fmt.Sprint(i/5)).Set(float64(i) / 4)
	}
	s := f.NewSummary(prometheus.SummaryOpts{Name: "demo_wait_seconds", Help: "Constant.", Objectives: map[float64]float64{0.5: 0.05, 0.9: 0.01}, MaxAge: time.Hour})
	for i := range 100 {
		s.Observe(float64(i))
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// rich has classic and native histograms with exemplars.
func rich() http.Handler {
	reg := prometheus.NewRegistry()
	f := promauto.With(reg)
	classic := f.NewHistogram(prometheus.HistogramOpts{Name: "demo_request_seconds", Help: "Constant.", Buckets: []float64{0.1, 1, 10}})
	native := f.NewHistogramVec(prometheus.HistogramOpts{Name: "demo_native_seconds", Help: "Constant.", NativeHistogramBucketFactor: 1.1}, []string{"code"})
	for i := range 50 {
		classic.(prometheus.ExemplarObserver).ObserveWithExemplar(float64(i)/5, prometheus.Labels{"trace_id": fmt.Sprint("t", i)})
		native.WithLabelValues("200").Observe(float64(i) / 7)
		native.WithLabelValues("500").Observe(float64(i * i))
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// text is written by hand: labels that clash with the target's, timestamps, UTF-8 names, and a series that comes and goes.
func text(ended *atomic.Bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; escaping=allow-utf-8")
		fmt.Fprint(w, "# HELP clash_total Has labels that a target has.\n# TYPE clash_total counter\n")
		fmt.Fprint(w, `clash_total{job="mine",instance="here"} 7`, "\n")
		fmt.Fprint(w, "# TYPE untyped_thing untyped\nuntyped_thing{path=\"a\\\"b\"} NaN\n")
		fmt.Fprint(w, "# TYPE \"with.dots\" gauge\n{\"with.dots\",\"label.dots\"=\"x\"} 1\n")
		if !ended.Load() {
			fmt.Fprint(w, "# TYPE short_lived gauge\nshort_lived 1\n")
		}
	})
}
