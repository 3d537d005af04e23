// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"cmp"
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/monitor"
)

// Shapes of answers.
const (
	data     = `"status":"success"`
	failure  = `"status":"error"`
	html     = "<!DOCTYPE html>"
	anything = ""
)

// routeMap is what Prometheus 3.15 routes, each with what the methods answer, as "METHOD code" with one shape for the
// first. "*" is any other method; without it they are 405, but for OPTIONS, which is 204 everywhere below /api/v1.
var routeMap = map[string]struct{ answers, shape string }{
	"/api/v1/query?query=1":                                {"GET 200 POST 200", data},
	"/api/v1/query_range?query=1&start=1&end=2&step=1":     {"GET 200 POST 200", data},
	"/api/v1/query_exemplars?query=a&start=1&end=2":        {"GET 200 POST 200", data},
	"/api/v1/format_query?query=a":                         {"GET 200 POST 200", data},
	"/api/v1/parse_query?query=a":                          {"GET 200 POST 200", data},
	"/api/v1/labels":                                       {"GET 200 POST 200", data},
	"/api/v1/label/job/values":                             {"GET 200", data},
	"/api/v1/series?match[]=a":                             {"GET 200 POST 200", data},
	"/api/v1/scrape_pools":                                 {"GET 200", data},
	"/api/v1/scrape_pools/config?scrapePool=x":             {"GET 400", failure},
	"/api/v1/targets":                                      {"GET 200", data},
	"/api/v1/targets/metadata":                             {"GET 200", data},
	"/api/v1/targets/relabel_steps?scrapePool=x&labels={}": {"GET 400", failure},
	"/api/v1/alertmanagers":                                {"GET 200", data},
	"/api/v1/metadata":                                     {"GET 200", data},
	"/api/v1/status/config":                                {"GET 200", data},
	"/api/v1/status/runtimeinfo":                           {"GET 200", data},
	"/api/v1/status/buildinfo":                             {"GET 200", data},
	"/api/v1/status/flags":                                 {"GET 200", data},
	"/api/v1/status/tsdb":                                  {"GET 200", data},
	"/api/v1/status/tsdb/blocks":                           {"GET 200", data},
	"/api/v1/status/self_metrics":                          {"GET 200", data},
	"/api/v1/status/walreplay":                             {"GET 200", data},
	"/api/v1/features":                                     {"GET 200", data},
	"/api/v1/notifications":                                {"GET 200", data},
	"/api/v1/read":                                         {"POST 400", anything},
	"/api/v1/write":                                        {"POST 415", anything},
	"/api/v1/otlp/v1/metrics":                              {"POST 400", anything},
	"/api/v1/search/metric_names":                          {"GET 200 POST 200", anything},
	"/api/v1/search/label_names":                           {"GET 200 POST 200", anything},
	"/api/v1/search/label_values?label=job":                {"GET 200 POST 200", anything},
	"/api/v1/alerts":                                       {"GET 200", data},
	"/api/v1/rules":                                        {"GET 200", data},
	"/api/v1/admin/tsdb/delete_series?match[]=a":           {"POST 204 PUT 204 DELETE 204", anything},
	"/api/v1/admin/tsdb/clean_tombstones":                  {"POST 204 PUT 204", anything},
	"/api/v1/admin/tsdb/snapshot":                          {"POST 200 PUT 200", data},
	"/api/v1/openapi.yaml":                                 {"GET 200", "openapi: 3.1"},
	"/api/v1/openapi.yaml?openapi_version=3.2":             {"GET 200", "openapi: 3.2"},
	"/api/v1/nothing":                                      {"GET 404 * 404", anything},

	"/":                       {"GET 200", html},
	"/graph?g0.expr=up":       {"GET 302", "/query?g0.expr=up"},
	"/query":                  {"GET 200", html},
	"/alerts":                 {"GET 200", html},
	"/rules":                  {"GET 200", html},
	"/tsdb-status":            {"GET 200", html},
	"/config":                 {"GET 200", html},
	"/flags":                  {"GET 200", html},
	"/service-discovery":      {"GET 200", html},
	"/alertmanager-discovery": {"GET 200", html},
	"/status":                 {"GET 200", html},
	"/targets":                {"GET 200", html},
	"/version":                {"GET 200", `"version"`},
	"/metrics":                {"GET 200", "prometheus_ready 1"},
	"/federate?match[]=a":     {"GET 200", "# TYPE a untyped"},
	"/consoles/none.html":     {"GET 404", anything},
	"/-/healthy":              {"GET 200 HEAD 200", "Deucalion Server is Healthy.\n"},
	"/-/ready":                {"GET 200 HEAD 200", "Deucalion Server is Ready.\n"},
	"/-/reload":               {"POST 200 PUT 200 GET 405", anything},
	"/-/quit":                 {"POST 200 PUT 200 GET 405", "Requesting termination... Goodbye!"},
	"/debug/pprof/":           {"GET 200 POST 200", "goroutine"},
	"/nothing":                {"GET 404 * 404", anything},

	// not routed by Prometheus's version of today
	"/api/v1/query_cost?query=1":          {"GET 404 * 404", anything},
	"/api/v1/cluster":                     {"GET 200 * 404", data},
	"/api/v1/admin/cluster/digest":        {"POST 200 PUT 200 * 404", data},
	"/api/v2/admin/tsdb/snapshot":         {"POST 200", `{"name":"`},
	"/api/v2/admin/tsdb/delete_series":    {"POST 400", `"code":3`},
	"/api/v2/admin/tsdb/clean_tombstones": {"POST 200", "{}"},
}

func TestRouteMap(t *testing.T) {
	i := newInstance(t, func(c *api.Config) {
		c.EnableLifecycle, c.Reload, c.Quit = true, func() error { return nil }, func() {}
		c.EnableOTLP = true
		c.Appendable = monitor.NewAppendable(monitor.AppendableOptions{FSM: c.FSM, Proposer: c.Cluster, Registerer: prometheus.NewRegistry()})
		c.Search.Enable = true
		c.Consoles.Templates = t.TempDir()
	})
	i.write(t, "a", 1)
	for target, row := range routeMap {
		if strings.Contains(target, "delete_series?") {
			defer checkRoute(t, i, target, row.answers, row.shape) // it deletes what others show
			continue
		}
		checkRoute(t, i, target, row.answers, row.shape)
	}
}

func checkRoute(t *testing.T, i *instance, target, answers, shape string) {
	t.Helper()
	want := map[string]string{}
	fields := strings.Fields(answers)
	for j := 0; j < len(fields); j += 2 {
		want[fields[j]] = fields[j+1]
	}
	body := "x"
	if strings.HasPrefix(target, "/api/v2/") {
		body = ""
	}
	ask := func(method string) answer {
		return i.do(method, target, body, "Origin", "http://o", "Content-Type", "text/x")
	}
	for j, method := range []string{fields[0], "GET", "POST", "PUT", "DELETE", "PATCH"} {
		code, named := want[method]
		if !named {
			code = cmp.Or(want["*"], "405")
		}
		if j > 0 && method == fields[0] {
			continue
		}
		a := ask(method)
		assert.Equal(t, code, strconv.Itoa(a.code), "%s %s: %s", method, target, a.text)
		if j == 0 && strings.HasPrefix(code, "3") {
			assert.Equal(t, shape, a.header.Get("Location"))
		} else if j == 0 {
			assert.Contains(t, a.text, shape, "%s %s", method, target)
		}
	}
	if strings.HasPrefix(target, "/api/v1/") {
		a := ask(http.MethodOptions)
		assert.Equal(t, 204, a.code, "OPTIONS %s", target)
		assert.NotEmpty(t, a.header.Get("Access-Control-Allow-Origin"), target)
	}
}

// The live notifications never end by themselves.
func TestLiveNotifications(t *testing.T) {
	i := newInstance(t, nil)
	server := httptest.NewServer(i.handler)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	open := func() *http.Response {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/api/v1/notifications/live", nil)
		require.NoError(t, err)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		return res
	}
	first := open()
	defer first.Body.Close()
	require.Equal(t, 200, first.StatusCode)
	require.Equal(t, "text/event-stream", first.Header.Get("Content-Type"))
	second := open()
	defer second.Body.Close()
	require.Equal(t, 204, second.StatusCode, "one subscriber is allowed")
	cancel()
}
