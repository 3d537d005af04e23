// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"

	"github.com/felixge/fgprof"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/httputil"

	"github.com/deucaliondb/deucalion/api/federate"
)

// rootRoutes adds what says how this process is.
func (a *API) rootRoutes(mux *http.ServeMux, prefix string) {
	handle := func(path string, h http.HandlerFunc) {
		mux.Handle("GET "+prefix+path, a.metrics.instrument(path, h))
	}
	handle("/version", a.version)
	handle("/-/healthy", a.healthy)
	handle("/-/ready", a.ready)
	metrics := promhttp.HandlerFor(a.cfg.Gatherer, promhttp.HandlerOpts{Registry: a.cfg.Registerer})
	handle("/metrics", promhttp.InstrumentMetricHandler(a.cfg.Registerer, metrics).ServeHTTP)
}

// dataRoutes adds what answers from stored data outside of /api/v1.
func (a *API) dataRoutes(mux *http.ServeMux, prefix string, b *barrier) {
	handle := func(path, name string, h http.Handler) {
		mux.Handle("GET "+prefix+path, a.metrics.instrument(name, a.gate.wrap(b.wrap(h)).ServeHTTP))
	}
	handle("/federate", "/federate", httputil.CompressionHandler{Handler: federate.New(federate.Config{
		Queryable: a.cfg.FSM,
		Parser:    a.cfg.Parser,
		Lookback:  a.cfg.LookbackDelta,
		ExternalLabels: func() labels.Labels {
			conf := a.cfg.PrometheusConfig()
			return conf.GlobalConfig.ExternalLabels
		},
		Logger:     a.logger.With("component", "federation"),
		Registerer: a.cfg.Registerer,
	})})
	if a.cfg.Consoles.Templates != "" { // which http.Dir would take for the working directory
		handle("/consoles/{path...}", "/consoles/*filepath", withPath(http.HandlerFunc(a.console)))
	}
}

// healthy says that the process runs, whatever the state of the cluster: restarting it would not help a cluster that
// has no leader.
func (a *API) healthy(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		fmt.Fprintf(w, "%s is Healthy.\n", appName)
	}
}

func (a *API) version(w http.ResponseWriter, _ *http.Request) {
	if err := json.NewEncoder(w).Encode(a.cfg.BuildInfo); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// debugRoutes serves the profiles of net/http/pprof, which looks at the path itself and so must not see the prefix.
func (a *API) debugRoutes(mux *http.ServeMux, prefix string) {
	handle := func(path string, h http.Handler) {
		for _, method := range []string{"GET ", "POST "} {
			mux.Handle(method+prefix+"/debug/"+path, http.StripPrefix(prefix, h))
		}
	}
	handle("", http.NotFoundHandler())
	handle("pprof", http.RedirectHandler(prefix+"/debug/pprof/", http.StatusMovedPermanently))
	handle("pprof/", http.HandlerFunc(pprof.Index))
	handle("pprof/cmdline", http.HandlerFunc(pprof.Cmdline))
	handle("pprof/profile", http.HandlerFunc(pprof.Profile))
	handle("pprof/symbol", http.HandlerFunc(pprof.Symbol))
	handle("pprof/trace", http.HandlerFunc(pprof.Trace))
	handle("pprof/fgprof", oneAtATime(fgprof.Handler()))
}

// oneAtATime refuses requests while one is under way: fgprof stops all goroutines 99 times a second.
func oneAtATime(next http.Handler) http.Handler {
	slot := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slot <- struct{}{}:
			defer func() { <-slot }()
			next.ServeHTTP(w, r)
		default:
			http.Error(w, "fgprof profiling already in use", http.StatusInternalServerError)
		}
	})
}
