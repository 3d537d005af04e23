// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/http/pprof"
)

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

var homePage = template.Must(template.New("home").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Deucalion</title></head><body>
<h1>Deucalion</h1>
<p>Node {{.Node}}, version {{.Version}}. This is a Prometheus HTTP API: point Grafana or promtool at this address.</p>
<ul>
<li><a href="{{.Prefix}}/api/v1/cluster">Cluster</a></li>
<li><a href="{{.Prefix}}/api/v1/status/runtimeinfo">Runtime</a></li>
<li><a href="{{.Prefix}}/api/v1/status/tsdb">Storage</a></li>
<li><a href="{{.Prefix}}/api/v1/status/flags">Flags</a></li>
<li><a href="{{.Prefix}}/api/v1/openapi.yaml">API description</a></li>
<li><a href="{{.Prefix}}/metrics">Metrics</a></li>
<li><a href="{{.Prefix}}/-/ready">Readiness</a></li>
</ul></body></html>
`))

func (a *API) home(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = homePage.Execute(w, map[string]string{ // fails only when the client is gone
		"Node": a.cfg.Cluster.ID(), "Version": a.cfg.BuildInfo.Version, "Prefix": a.cfg.ExternalURL.Path,
	})
}

// debugRoutes serves the profiles of net/http/pprof, which looks at the path itself and so must not see the prefix.
func (a *API) debugRoutes(mux *http.ServeMux, prefix string) {
	handle := func(path string, h http.HandlerFunc) {
		mux.Handle(prefix+"/debug/pprof/"+path, http.StripPrefix(prefix, h))
	}
	handle("", pprof.Index)
	handle("cmdline", pprof.Cmdline)
	handle("profile", pprof.Profile)
	handle("symbol", pprof.Symbol)
	handle("trace", pprof.Trace)
}
