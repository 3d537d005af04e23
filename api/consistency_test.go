// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/api/internal/solo"
	"github.com/deucaliondb/deucalion/cluster"
)

func TestConsistency(t *testing.T) {
	stale := solo.State{Staleness: 11 * time.Second}
	unknown := solo.State{Staleness: math.MaxInt64}
	noLeader := solo.State{Staleness: math.MaxInt64, ReadIndexErr: cluster.ErrNoLeader, NoLeader: true}
	const q = "/api/v1/query?query=a"
	instances := map[api.Level]*instance{
		"":        newInstance(t, nil),
		api.Local: newInstance(t, func(c *api.Config) { c.Consistency = api.Local }),
	}
	for name, tc := range map[string]struct {
		state  solo.State
		level  api.Level
		target string
		header []string
		code   int
		text   string
	}{
		"default":                     {solo.State{}, "", q, nil, 200, ""},
		"bounded, just fresh":         {solo.State{Staleness: 10 * time.Second}, "", q, nil, 200, ""},
		"bounded, stale":              {stale, "", q, nil, 503, "state of this node is 11s behind the leader, more than 10s"},
		"bounded, unknown":            {unknown, "", q, nil, 503, "unknown time"},
		"local by parameter":          {noLeader, "", q + "&consistency=local", nil, 200, ""},
		"local by header":             {noLeader, "", q, []string{"X-Deucalion-Consistency", "local"}, 200, ""},
		"header before parameter":     {stale, "", q + "&consistency=bounded", []string{"X-Deucalion-Consistency", "local"}, 200, ""},
		"local by default":            {noLeader, api.Local, q, nil, 200, ""},
		"bounded against default":     {stale, api.Local, q + "&consistency=bounded", nil, 503, "behind the leader"},
		"linearizable":                {unknown, "", q + "&consistency=linearizable", nil, 200, ""},
		"linearizable, no leader":     {noLeader, "", q + "&consistency=linearizable", nil, 503, "read index: no leader"},
		"unknown level":               {solo.State{}, "", q + "&consistency=strong", nil, 400, `unknown consistency level "strong"`},
		"unknown level in the header": {solo.State{}, "", q, []string{"X-Deucalion-Consistency", "1"}, 400, "unknown consistency level"},
		"index reached":               {solo.State{}, "", q, []string{"X-Deucalion-Min-Index", "1"}, 200, ""},
		"index not reached":           {solo.State{}, "", q, []string{"X-Deucalion-Min-Index", "99"}, 503, "wait for index 99: this node is at index 1"},
		"index, also when local":      {noLeader, "", q + "&consistency=local", []string{"X-Deucalion-Min-Index", "99"}, 503, "wait for index 99"},
		"index garbage":               {solo.State{}, "", q, []string{"X-Deucalion-Min-Index", "-1"}, 400, `invalid X-Deucalion-Min-Index "-1"`},
	} {
		t.Run(name, func(t *testing.T) {
			i := instances[tc.level]
			i.Set(solo.State{})
			require.Equal(t, 200, i.get("/api/v1/query?query=1").code)
			i.Set(tc.state)
			a := i.get(tc.target, tc.header...)
			require.Equal(t, tc.code, a.code, a.text)
			require.Equal(t, "solo", a.header.Get("X-Deucalion-Node"))
			switch tc.code {
			case 200:
				require.Equal(t, "1", a.header.Get("X-Deucalion-Index"))
				return
			case 503:
				require.Equal(t, "1", a.header.Get("Retry-After"))
				require.Equal(t, "unavailable", a.json(t)["errorType"])
			case 400:
				require.Equal(t, "bad_data", a.json(t)["errorType"])
			}
			require.Contains(t, a.json(t)["error"], tc.text)
		})
	}
}

// TestConsistencyCovers holds that every route that reads data obeys, and that no other one does.
func TestConsistencyCovers(t *testing.T) {
	i := newInstance(t, nil)
	require.Equal(t, 200, i.get("/-/ready").code)
	require.Equal(t, 200, i.get("/api/v1/query?query=1").code)
	i.Set(solo.State{Staleness: time.Hour})
	for _, target := range []string{
		"/api/v1/query?query=1", "/api/v1/query_range?query=1&start=1&end=2&step=1", "/api/v1/series?match[]=a", "/api/v1/labels",
		"/api/v1/label/job/values", "/api/v1/query_exemplars?query=a&start=1&end=2", "/api/v1/metadata",
	} {
		require.Equal(t, 503, i.get(target).code, target)
		require.NotEqual(t, 503, i.get(target, "X-Deucalion-Consistency", "local").code, target)
	}
	for _, target := range []string{"/api/v1/query", "/api/v1/query_range", "/api/v1/series", "/api/v1/labels", "/api/v1/query_exemplars"} {
		require.Equal(t, 503, i.form(http.MethodPost, target, "query=1").code, target)
	}
	require.Equal(t, 503, i.do(http.MethodPost, "/api/v1/read", "").code)
	require.Equal(t, 400, i.do(http.MethodPost, "/api/v1/read?consistency=local", "").code)
	for _, target := range []string{
		"/api/v1/format_query?query=a", "/api/v1/parse_query?query=a", "/api/v1/status/buildinfo", "/api/v1/status/flags",
		"/api/v1/cluster", "/api/v1/targets", "/api/v1/rules", "/-/healthy", "/metrics",
	} {
		require.Equal(t, 200, i.get(target).code, target)
	}
	require.Equal(t, 204, i.do(http.MethodOptions, "/api/v1/query", "").code)
}

func TestConsistencyInAForm(t *testing.T) {
	i := newInstance(t, nil)
	require.Equal(t, 200, i.get("/api/v1/query?query=1").code)
	i.Set(solo.State{Staleness: time.Hour})
	a := i.form(http.MethodPost, "/api/v1/query", "query=1%2B1&consistency=local")
	require.Equal(t, 200, a.code, a.text)
	require.Contains(t, a.text, `"2"`, "the inner handler must still see the form")
	require.Equal(t, 503, i.form(http.MethodPost, "/api/v1/query", "query=1%2B1&consistency=bounded").code)
	const multipart = "--x\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\n1+1\r\n" +
		"--x\r\nContent-Disposition: form-data; name=\"consistency\"\r\n\r\nlocal\r\n--x--\r\n"
	a = i.do(http.MethodPost, "/api/v1/query", multipart, "Content-Type", "multipart/form-data; boundary=x")
	require.Equal(t, 200, a.code, a.text)
	require.Contains(t, a.text, `"2"`)
}

// What is wrong with a form is told, and not left out of it: the answer would be another one.
func TestMalformedFormIsRefused(t *testing.T) {
	i := newInstance(t, nil)
	i.write(t, "a", 1)
	const text = "error parsing form values: "
	for _, a := range []answer{
		i.get("/api/v1/series?match[]=a&start=%zz"), i.get("/federate?match[]=a&match[]=%zz"),
		i.form(http.MethodPost, "/api/v1/series", "match[]=a&start=%zz"),
		i.form(http.MethodPost, "/api/v1/series", "consistency=local&match[]=a&start=%zz"),
		i.form(http.MethodPost, "/api/v1/series", "match[]=a&x="+strings.Repeat("x", 11<<20)),
	} {
		require.Equal(t, 400, a.code, a.text)
		require.Contains(t, a.text, text)
	}
	// Here Prometheus takes what it understands.
	require.Contains(t, i.form(http.MethodPost, "/api/v1/query", "query=1%2B1&time=%zz").text, `"2"`)
	require.Contains(t, i.get("/api/v1/query?query=1%2B1&time=%zz").text, `"2"`)
	i.Set(solo.State{Staleness: time.Hour})
	require.Equal(t, 503, i.get("/api/v1/query?query=1&time=%zz").code)
	require.Equal(t, 200, i.form(http.MethodPost, "/api/v1/query", "query=1&time=%zz&consistency=local").code)
}

func TestReadYourWrites(t *testing.T) {
	i := newInstance(t, nil)
	i.write(t, "a", 1)
	index, _ := i.FSM.Applied()
	a := i.get("/api/v1/query?query=a", "X-Deucalion-Min-Index", strconv.FormatUint(index, 10), "Origin", "http://x")
	require.Equal(t, 200, a.code)
	require.Contains(t, a.text, `"1"`)
	require.Equal(t, strconv.FormatUint(index, 10), a.header.Get("X-Deucalion-Index"))
	require.Contains(t, a.header.Get("Access-Control-Expose-Headers"), "X-Deucalion-Index, X-Deucalion-Node")
	require.Contains(t, a.header.Get("Access-Control-Allow-Headers"), "X-Deucalion-Consistency")
}

func TestReadiness(t *testing.T) {
	i := newInstance(t, nil)
	i.Set(solo.State{ReadyErr: errors.New("not caught up yet"), Staleness: math.MaxInt64})
	a := i.get("/-/ready")
	require.Equal(t, 503, a.code)
	require.Contains(t, a.text, "not caught up yet")
	require.Equal(t, "false", a.header.Get("X-Prometheus-Stopping"))
	for _, target := range []string{"/api/v1/query?query=1", "/api/v1/labels", "/api/v1/status/tsdb"} {
		a = i.get(target)
		require.Equal(t, 503, a.code, target)
		require.Equal(t, "Service Unavailable", a.text, target)
	}
	require.Equal(t, 503, i.do(http.MethodPost, "/api/v1/write", "").code)
	require.Equal(t, 200, i.get("/api/v1/query?query=1&consistency=local").code, "who asks for what there is gets it")
	require.Equal(t, 200, i.get("/api/v1/cluster").code)
	require.Equal(t, 200, i.get("/-/healthy").code)

	i.Set(solo.State{})
	require.Equal(t, 200, i.get("/api/v1/query?query=1").code)
	require.Equal(t, "Deucalion Server is Ready.\n", i.get("/-/ready").text)

	i.Set(solo.State{ReadyErr: errors.New("no leader")})
	require.Equal(t, 503, i.get("/-/ready").code)
	require.Equal(t, 200, i.get("/api/v1/query?query=1").code, "without a leader reads go on")

	i.Set(solo.State{ReadyErr: cluster.ErrStopped})
	require.Equal(t, "true", i.get("/-/ready").header.Get("X-Prometheus-Stopping"))
	require.Equal(t, 503, i.get("/api/v1/query?query=1&consistency=local").code)
}
