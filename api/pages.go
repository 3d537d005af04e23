// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"html/template"
	"net/http"
)

// pagePaths are where Prometheus has pages of its web interface. Links in alerts and dashboards lead to them.
var pagePaths = [...]string{
	"/query", "/alerts", "/rules", "/tsdb-status", "/config", "/flags",
	"/service-discovery", "/alertmanager-discovery", "/status", "/targets",
}

// pageRoutes adds what a browser shows.
func (a *API) pageRoutes(mux *http.ServeMux, prefix string) {
	handle := func(path, name string, h http.HandlerFunc) {
		mux.Handle("GET "+prefix+path, a.metrics.instrument(name, h))
	}
	handle("/{$}", "/", a.home)
	for _, path := range pagePaths {
		handle(path, path, a.home)
	}
	handle("/graph", "/graph", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, a.cfg.ExternalURL.Path+"/query?"+r.URL.RawQuery, http.StatusFound)
	})
	if dir := a.cfg.UserAssets; dir != "" {
		handle("/user/", "/user/*filepath", http.StripPrefix(prefix+"/user", http.FileServer(http.Dir(dir))).ServeHTTP)
	}
	if prefix != "" {
		mux.Handle("GET /{$}", http.RedirectHandler(prefix+"/", http.StatusFound))
	}
}

var homePage = template.Must(template.New("home").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Title}}</title></head><body>
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
		"Title": a.cfg.PageTitle, "Node": a.cfg.Cluster.ID(), "Version": a.cfg.BuildInfo.Version, "Prefix": a.cfg.ExternalURL.Path,
	})
}
