// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/util/httputil"
)

// isRead tells which routes of Prometheus's API answer from stored data, and so have a consistency level.
func isRead(route string) bool {
	switch route {
	case "/query", "/query_range", "/query_exemplars", "/labels", "/label/:name/values", "/series",
		"/search/metric_names", "/search/label_names", "/search/label_values":
		return true
	}
	return false
}

// routes builds the tree of all handlers. A pattern with a method is more specific than the catch-all of
// Prometheus's router, so our own handler serves its methods and Prometheus's answers the rest (405, or 204 with the
// CORS headers to OPTIONS).
func (a *API) routes() http.Handler {
	prefix := a.cfg.prefix()
	barrier := a.newBarrier()
	mux := http.NewServeMux()
	a.rootRoutes(mux, prefix)
	a.dataRoutes(mux, prefix, barrier)
	a.pageRoutes(mux, prefix)
	a.lifecycleRoutes(mux, prefix)
	a.debugRoutes(mux, prefix)
	a.gatewayRoutes(mux, prefix)

	stock := route.New().WithInstrumentation(func(name string, h http.HandlerFunc) http.HandlerFunc {
		if isRead(name) {
			h = a.gate.wrap(barrier.wrap(h)).ServeHTTP
		}
		if name == "/search/metric_names" {
			h = markSearch(h)
		}
		if slices.Contains(ruleRoutes, name) {
			h = a.byRuler(h)
		}
		return a.metrics.instrument("/api/v1"+name, h)
	})
	a.prometheus.Register(stock)

	v1 := http.NewServeMux()
	v1.Handle("/", stock)
	a.ownRoutes(v1, barrier)
	mux.Handle(prefix+"/api/v1/", exposeHeaders(withPath(http.StripPrefix(prefix+"/api/v1", v1))))
	return answerOptions(mux)
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
		a.cfg.PrometheusConfig, a.cfg.RemoteRead.Samples, a.cfg.RemoteRead.concurrency(), a.cfg.RemoteRead.BytesInFrame)
	handle("POST", "/write", a.gate.wrap(a.write))
	if a.cfg.EnableOTLP { // else Prometheus's handler says how to enable it
		handle("POST", "/otlp/v1/metrics", a.gate.wrap(a.newOTLP()))
	}
	handle("POST", "/read", a.gate.wrap(b.wrap(read)))
	handle("GET", "/metadata", a.plain(a.gate.wrap(b.wrap(http.HandlerFunc(a.metadata)))))
	a.targetRoutes(handle)
	handle("GET", "/cluster", a.plain(http.HandlerFunc(a.clusterStatus)))
	handle("POST PUT DELETE", "/admin/tsdb/delete_series", a.admin(a.deleteSeries))
	handle("POST PUT", "/admin/tsdb/clean_tombstones", a.admin(a.cleanTombstones))
	handle("POST PUT", "/admin/tsdb/snapshot", a.admin(a.snapshot))
	handle("POST PUT", "/admin/tsdb/import", a.admin(a.importBlocks))
	handle("POST PUT", "/admin/cluster/digest", a.admin(a.digest))
	handle("POST PUT", "/admin/cluster/transfer_leader", a.admin(a.transferLeader))
	handle("POST PUT", "/admin/cluster/remove_peer", a.admin(a.removePeer))
}

// withPath notes the path for the query log, before a prefix of it is stripped.
func withPath(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(httputil.ContextWithPath(r.Context(), r.URL.Path)))
	})
}

// plain adds to a handler of ours what Prometheus adds to all of its own: CORS headers and compression.
func (a *API) plain(next http.Handler) http.Handler {
	compressed := httputil.CompressionHandler{Handler: next}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httputil.SetCORS(w, a.cfg.CORSOrigin, r)
		compressed.ServeHTTP(w, r)
	})
}

// prefix is what goes before all routes, without a slash at its end.
func (c *Config) prefix() string {
	if c.RoutePrefix == "" {
		return strings.TrimRight(c.ExternalURL.Path, "/")
	}
	return strings.TrimRight("/"+strings.Trim(c.RoutePrefix, "/"), "/")
}
