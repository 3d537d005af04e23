// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/util/httputil"
)

// isRead tells which routes of Prometheus's API answer from stored data, and so have a consistency level.
func isRead(route string) bool {
	switch route {
	case "/query", "/query_range", "/query_exemplars", "/labels", "/label/:name/values", "/series":
		return true
	}
	return false
}

// routes builds the tree of all handlers. A pattern with a method is more specific than the catch-all of
// Prometheus's router, so our own handler serves its methods and Prometheus's answers the rest (405, or 204 with the
// CORS headers to OPTIONS).
func (a *API) routes() http.Handler {
	prefix := strings.TrimRight(a.cfg.ExternalURL.Path, "/")
	mux := http.NewServeMux()
	a.rootRoutes(mux, prefix)
	a.debugRoutes(mux, prefix)

	barrier := a.newBarrier()
	stock := route.New().WithInstrumentation(func(name string, h http.HandlerFunc) http.HandlerFunc {
		if isRead(name) {
			h = a.gate.wrap(barrier.wrap(h)).ServeHTTP
		}
		return a.metrics.instrument("/api/v1"+name, h)
	})
	a.prometheus.Register(stock)

	v1 := http.NewServeMux()
	v1.Handle("/", stock)
	a.ownRoutes(v1, barrier)
	mux.Handle(prefix+"/api/v1/", exposeHeaders(http.StripPrefix(prefix+"/api/v1", v1)))
	return mux
}

// ownRoutes adds what Prometheus's API does not have, or not for a cluster.
func (a *API) ownRoutes(mux *http.ServeMux, b *barrier) {
	handle := func(methods, path string, h http.Handler) {
		h = a.metrics.instrument("/api/v1"+path, h.ServeHTTP)
		for method := range strings.SplitSeq(methods, " ") {
			mux.Handle(method+" "+path, h)
		}
	}
	read := remote.NewReadHandler(a.logger.With("component", "remote read"), a.cfg.Registerer, a.cfg.FSM.ExactQueryable(),
		a.cfg.PrometheusConfig, a.cfg.RemoteRead.Samples, a.cfg.RemoteRead.Concurrency, a.cfg.RemoteRead.BytesInFrame)
	handle("POST", "/write", a.gate.wrap(a.write))
	handle("POST", "/read", a.gate.wrap(b.wrap(read)))
	handle("GET", "/metadata", a.plain(a.gate.wrap(b.wrap(http.HandlerFunc(a.metadata)))))
	handle("GET", "/cluster", a.plain(http.HandlerFunc(a.clusterStatus)))
	handle("POST PUT DELETE", "/admin/tsdb/delete_series", a.admin(a.deleteSeries))
	handle("POST PUT", "/admin/tsdb/clean_tombstones", a.admin(a.cleanTombstones))
	handle("POST PUT", "/admin/tsdb/snapshot", a.admin(a.snapshot))
	handle("POST PUT", "/admin/tsdb/import", a.admin(a.importBlocks))
	handle("POST PUT", "/admin/cluster/digest", a.admin(a.digest))
}

// plain adds to a handler of ours what Prometheus adds to all of its own: CORS headers and compression.
func (a *API) plain(next http.Handler) http.Handler {
	compressed := httputil.CompressionHandler{Handler: next}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httputil.SetCORS(w, a.cfg.CORSOrigin, r)
		compressed.ServeHTTP(w, r)
	})
}

// rootRoutes adds what stands outside of /api/v1.
func (a *API) rootRoutes(mux *http.ServeMux, prefix string) {
	handle := func(path, name string, h http.HandlerFunc) {
		mux.Handle("GET "+prefix+path, a.metrics.instrument(name, h))
	}
	handle("/{$}", "/", a.home)
	handle("/version", "/version", a.version)
	handle("/-/healthy", "/-/healthy", a.healthy)
	handle("/-/ready", "/-/ready", a.ready)
	metrics := promhttp.HandlerFor(a.cfg.Gatherer, promhttp.HandlerOpts{Registry: a.cfg.Registerer})
	handle("/metrics", "/metrics", promhttp.InstrumentMetricHandler(a.cfg.Registerer, metrics).ServeHTTP)
	if prefix != "" {
		mux.Handle("GET /{$}", http.RedirectHandler(prefix+"/", http.StatusFound))
	}
}
