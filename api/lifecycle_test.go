// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api"
)

func TestLifecycle(t *testing.T) {
	var reloadErr error
	reloads, quits := 0, 0
	i := newInstance(t, func(c *api.Config) {
		c.EnableLifecycle = true
		c.Reload = func() error { reloads++; return reloadErr }
		c.Quit = func() { quits++ }
	})
	for _, method := range []string{http.MethodPost, http.MethodPut} {
		a := i.do(method, "/-/reload", "")
		require.Equal(t, 200, a.code)
		require.Empty(t, a.text)
	}
	reloadErr = errors.New("bad file")
	a := i.do(http.MethodPost, "/-/reload", "")
	require.Equal(t, 500, a.code)
	require.Equal(t, "failed to reload config: bad file\n", a.text)
	require.Equal(t, 3, reloads)

	a = i.do(http.MethodPut, "/-/quit", "")
	require.Equal(t, 200, a.code)
	require.Equal(t, "Requesting termination... Goodbye!", a.text)
	require.Equal(t, "Termination already in progress.", i.do(http.MethodPost, "/-/quit", "").text)
	require.Equal(t, 1, quits)
	for _, path := range []string{"/-/reload", "/-/quit"} {
		a := i.get(path)
		require.Equal(t, 405, a.code)
		require.Equal(t, "Only POST or PUT requests allowed", a.text)
	}
}

func TestLifecycleIsOffByDefault(t *testing.T) {
	i := newInstance(t, nil)
	for _, path := range []string{"/-/reload", "/-/quit"} {
		for _, method := range []string{http.MethodPost, http.MethodPut} {
			a := i.do(method, path, "")
			require.Equal(t, 403, a.code)
			require.Equal(t, "Lifecycle API is not enabled.", a.text)
		}
		require.Equal(t, 405, i.get(path).code)
	}
}

func TestConfigThatMakesNoSense(t *testing.T) {
	for _, cfg := range []api.Config{
		{Consistency: api.Local, EnableLifecycle: true},
		{Consistency: api.Local, EnableOTLP: true},
		{Consistency: api.Local, OTLP: api.OTLPOptions{ConvertDelta: true, NativeDelta: true}},
		{Consistency: "x"},
	} {
		_, err := api.New(cfg)
		require.Error(t, err)
	}
}

func TestConsoles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("a.html", `{{template "head" .}}{{range query "a"}}a={{.Value}}{{end}} {{$params.x}} {{$path}} {{$externalLabels.dc}}`)
	write("bad.html", `{{nonsense}}`)
	write("h.lib", `{{define "head"}}<h1>{{pathPrefix}}</h1>{{end}}`)
	i := newInstance(t, func(c *api.Config) { c.Consoles = api.ConsoleOptions{Templates: dir, Libraries: dir} })
	i.write(t, "a", 1, 2, 3)
	a := i.get("/consoles/a.html?x=<y>")
	require.Equal(t, 200, a.code, a.text)
	require.Equal(t, "<h1></h1>a=3 &lt;y&gt; a.html x", a.text)
	require.NotEmpty(t, a.header.Get("X-Deucalion-Index"))
	require.Equal(t, 500, i.get("/consoles/bad.html").code)
	require.Equal(t, 404, i.get("/consoles/none.html").code)
	require.NotEqual(t, 200, i.get("/consoles/..%2f..%2fetc%2fpasswd").code)
}

// Consoles show what queries do: that of the remote_read stores too.
func TestConsolesOfOtherSources(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.html"), []byte(`{{range query "a"}}a={{.Value}}{{end}}`), 0o600))
	other := newInstance(t, nil)
	other.write(t, "a", 7)
	i := newInstance(t, func(c *api.Config) { c.Consoles.Templates, c.Source = dir, other.FSM })
	a := i.get("/consoles/a.html")
	require.Equal(t, 200, a.code, a.text)
	require.Equal(t, "a=7", a.text)
}

func TestUserAssets(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "x.txt"), []byte("mine"), 0o600))
	i := newInstance(t, func(c *api.Config) { c.UserAssets, c.RoutePrefix = dir, "/prom" })
	require.Equal(t, "mine", i.get("/prom/user/x.txt").text)
	require.Equal(t, 404, i.get("/prom/user/y.txt").code)
	require.Equal(t, 404, newInstance(t, nil).get("/user/x.txt").code)
}

func TestSearch(t *testing.T) {
	i := newInstance(t, func(c *api.Config) { c.Search = api.SearchOptions{Enable: true, MaxLimit: 10} })
	for _, name := range []string{"http_requests_total", "http_errors_total", "up"} {
		i.write(t, name, 1)
	}
	a := i.get("/api/v1/search/metric_names?search[]=http")
	require.Equal(t, 200, a.code, a.text)
	require.Contains(t, a.text, "http_requests_total")
	require.Contains(t, a.text, "http_errors_total")
	require.NotContains(t, a.text, `"up"`)
	require.NotEmpty(t, a.header.Get("X-Deucalion-Index"))
	require.Contains(t, i.get("/api/v1/search/label_names?search[]=jo").text, "job")
	require.Contains(t, i.get("/api/v1/search/label_values?label=job").text, `"j"`)
	require.Equal(t, 400, i.get("/api/v1/search/label_names?limit=11").code)
	off := newInstance(t, nil).get("/api/v1/search/label_names")
	require.Equal(t, 500, off.code)
	require.Contains(t, off.text, "search API disabled")
}
