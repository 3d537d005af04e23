// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/api/internal/solo"
	"github.com/deucaliondb/deucalion/cluster"
)

// companions gives a node others that answer by hand; one without a handler does not answer.
type companions struct {
	*solo.Node
	others map[string]http.HandlerFunc
}

func (c companions) Members() []cluster.Member {
	out := c.Node.Members()
	for id := range c.others {
		out = append(out, cluster.Member{ID: id})
	}
	return out
}

func (c companions) AskPeer(ctx context.Context, id, method, uri string, header http.Header, body io.Reader) (*http.Response, error) {
	h, other := c.others[id]
	switch {
	case !other:
		return c.Node.AskPeer(ctx, id, method, uri, header, body)
	case h == nil:
		return nil, errors.New("no route to host")
	}
	w := httptest.NewRecorder()
	h(w, httptest.NewRequestWithContext(ctx, method, uri, body))
	return w.Result(), nil
}

func newCompanions(t *testing.T, others map[string]http.HandlerFunc) *instance {
	return newInstance(t, func(c *api.Config) { c.Cluster = companions{c.Cluster.(*solo.Node), others} })
}

// says answers each path with its text.
func says(texts map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text, ok := texts[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, `{"status":"success","data":`+text+`}`)
	}
}

const someTarget = `{"discoveredLabels":{"__address__":"a<b:1"},"labels":{"job":"j"},"scrapePool":"j","scrapeUrl":"http://URL/metrics",
	"globalUrl":"http://h:1/metrics","lastError":"","lastScrape":"2026-01-02T03:04:05.678Z","lastScrapeDuration":0.5,"health":"up",
	"scrapeInterval":"15s","scrapeTimeout":"10s"}`

func TestTargetsOfAllNodes(t *testing.T) {
	i := newCompanions(t, map[string]http.HandlerFunc{
		"b": says(map[string]string{"/api/v1/targets": `{"activeTargets":[` + someTarget + `],
			"droppedTargets":[{"discoveredLabels":{"x":"1"},"scrapePool":"j"}],"droppedTargetCounts":{"j":3,"k":0}}`}),
		"c": says(map[string]string{"/api/v1/targets": `{"activeTargets":[],"droppedTargets":[{"discoveredLabels":{"x":"2"},"scrapePool":"j"}],"droppedTargetCounts":{"j":4}}`}),
		"d": nil,
		"e": says(nil),
	})
	got := i.get("/api/v1/targets?state=any")
	require.Equal(t, http.StatusOK, got.code, got.text)
	var want map[string]any
	require.NoError(t, json.Unmarshal([]byte(someTarget), &want))
	want["node"] = "b"
	body := got.json(t)
	data := body["data"].(map[string]any)
	require.Equal(t, []any{want}, data["activeTargets"])
	require.Len(t, data["droppedTargets"], 2)
	require.Equal(t, map[string]any{"j": 7.0, "k": 0.0}, data["droppedTargetCounts"])
	require.Equal(t, []any{"node d: no route to host", "node e: 503 Service Unavailable"}, body["warnings"])
}

func TestTargetsAskWhatWasAsked(t *testing.T) {
	var asked []string
	i := newCompanions(t, map[string]http.HandlerFunc{"b": func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		says(map[string]string{"/api/v1/targets/metadata": `[{"target":{"n":"1"},"type":"counter","help":"h","unit":""},{"target":{"n":"2"},"type":"counter","help":"h","unit":""}]`})(w, r)
	}})
	query := "?" + url.Values{"match_target": {`{job="j"}`}, "limit": {"1"}}.Encode()
	got := i.get("/api/v1/targets/metadata" + query)
	require.Equal(t, http.StatusOK, got.code, got.text)
	require.Equal(t, []string{"/api/v1/targets/metadata" + query}, asked)
	require.Len(t, got.json(t)["data"], 1, "the limit is for all nodes together")
	require.Nil(t, got.json(t)["warnings"])
}

func TestScrapePoolsOfAllNodes(t *testing.T) {
	i := newCompanions(t, map[string]http.HandlerFunc{
		"b": says(map[string]string{
			"/api/v1/scrape_pools": `{"scrapePools":["y","x"]}`, "/api/v1/scrape_pools/config": `{"yaml":"job_name: x"}`,
			"/api/v1/targets/relabel_steps": `{"steps":[]}`,
		}),
		"c": says(map[string]string{"/api/v1/scrape_pools": `{"scrapePools":["x","z"]}`}),
	})
	pools := i.get("/api/v1/scrape_pools").json(t)["data"].(map[string]any)["scrapePools"]
	require.Equal(t, []any{"x", "y", "z"}, pools)
	// This node has no such pool.
	require.Equal(t, "job_name: x", i.get("/api/v1/scrape_pools/config?scrapePool=x").json(t)["data"].(map[string]any)["yaml"])
	require.Contains(t, i.get("/api/v1/targets/relabel_steps?scrapePool=x&labels={}").text, `"steps":[]`)
}

// Without a single part the answer is the refusal, in Prometheus's form.
func TestTargetsRefused(t *testing.T) {
	i := newCompanions(t, nil)
	for path, want := range map[string]int{
		"/api/v1/targets": http.StatusOK, "/api/v1/scrape_pools": http.StatusOK, "/api/v1/targets/metadata": http.StatusOK,
		"/api/v1/targets/metadata?limit=x":                    http.StatusBadRequest,
		"/api/v1/targets/metadata?match_target={":             http.StatusBadRequest,
		"/api/v1/scrape_pools/config":                         http.StatusBadRequest,
		"/api/v1/scrape_pools/config?scrapePool=none":         http.StatusBadRequest,
		"/api/v1/targets/relabel_steps?scrapePool=j":          http.StatusBadRequest,
		"/api/v1/targets/relabel_steps?scrapePool=&labels={}": http.StatusBadRequest,
	} {
		got := i.get(path)
		require.Equal(t, want, got.code, "%s: %s", path, got.text)
		if want != http.StatusOK {
			require.Equal(t, "bad_data", got.json(t)["errorType"], path)
		}
	}
	data := i.get("/api/v1/targets").json(t)["data"].(map[string]any)
	require.True(t, slices.Equal(keysOf(data), []string{"activeTargets", "droppedTargetCounts", "droppedTargets"}))
	require.Equal(t, []any{}, data["activeTargets"])
}

func keysOf(m map[string]any) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
