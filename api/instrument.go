// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// metrics are the HTTP metrics of Prometheus, by its names, so that its dashboards and alerts work.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	size     *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, g *gate) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "prometheus_http_requests_total",
			Help: "Counter of HTTP requests.",
		}, []string{"handler", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "prometheus_http_request_duration_seconds",
			Help:                            "Histogram of latencies for HTTP requests.",
			Buckets:                         []float64{.1, .2, .4, 1, 3, 8, 20, 60, 120},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"handler"}),
		size: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "prometheus_http_response_size_bytes",
			Help:    "Histogram of response size for HTTP requests.",
			Buckets: prometheus.ExponentialBuckets(100, 10, 8),
		}, []string{"handler"}),
	}
	reg.MustRegister(m.requests, m.duration, m.size, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "prometheus_ready",
		Help: "Whether this node is ready to be sent requests.",
	}, func() float64 {
		if g.cluster.Ready() != nil {
			return 0
		}
		return 1
	}))
	return m
}

func (m *metrics) instrument(name string, h http.HandlerFunc) http.HandlerFunc {
	m.requests.WithLabelValues(name, "200")
	handler := prometheus.Labels{"handler": name}
	return promhttp.InstrumentHandlerCounter(m.requests.MustCurryWith(handler),
		promhttp.InstrumentHandlerDuration(m.duration.MustCurryWith(handler),
			promhttp.InstrumentHandlerResponseSize(m.size.MustCurryWith(handler), h)))
}

// traced makes a span of each request, in the trace that the client names. Where spans go, and whether they are kept at
// all, is up to the global provider of OpenTelemetry, which Prometheus's tracing manager sets.
func traced(next http.Handler) http.Handler {
	return otelhttp.NewHandler(next, "", otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
		return r.Method + " " + r.URL.Path
	}))
}

// recoverPanics keeps one bad request from ending the process.
func (a *API) recoverPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { // how a handler cuts a connection on purpose
				panic(p)
			}
			a.logger.Error("Panic while serving a request", "client", r.RemoteAddr, "url", r.URL.String(), "err", p, "stack", string(debug.Stack()))
			http.Error(w, "internal error", http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}
