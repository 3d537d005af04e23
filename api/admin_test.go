// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/api/internal/solo"
	"github.com/deucaliondb/deucalion/cluster"
)

func TestAdminIsOffByDefault(t *testing.T) {
	i := newInstance(t, func(c *api.Config) { c.EnableAdmin = false })
	for _, path := range []string{"delete_series?match[]=a", "clean_tombstones", "snapshot"} {
		a := i.do(http.MethodPost, "/api/v1/admin/tsdb/"+path, "")
		require.Equal(t, 500, a.code)
		require.JSONEq(t, `{"status":"error","errorType":"unavailable","error":"admin APIs disabled"}`, a.text)
	}
}

func TestAdminVerbs(t *testing.T) {
	i := newInstance(t, nil)
	for _, tc := range []struct {
		method, path string
		code         int
	}{
		{"POST", "delete_series?match[]=a", 204},
		{"PUT", "delete_series?match[]=a", 204},
		{"DELETE", "delete_series?match[]=a", 204},
		{"GET", "delete_series?match[]=a", 405},
		{"POST", "clean_tombstones", 204},
		{"PUT", "clean_tombstones", 204},
		{"DELETE", "clean_tombstones", 405},
		{"POST", "snapshot", 200},
		{"PUT", "snapshot?skip_head=true", 200},
		{"DELETE", "snapshot", 405},
		{"OPTIONS", "snapshot", 204},
	} {
		a := i.do(tc.method, "/api/v1/admin/tsdb/"+tc.path, "")
		require.Equal(t, tc.code, a.code, "%s %s: %s", tc.method, tc.path, a.text)
	}
}

func TestDeleteSeries(t *testing.T) {
	for name, tc := range map[string]struct {
		params string
		form   bool
		method string
		left   string // counts of a, b, c
	}{
		"one":                    {"match[]=a", false, "POST", "0 3 3"},
		"several, one delete":    {"match[]=a&match[]={__name__=\"b\"}", false, "POST", "0 0 3"},
		"without a label":        {"match[]={job=\"\"}&match[]={job=\"\",__name__=~\".*\"}", false, "POST", "3 3 3"},
		"all but one":            {"match[]={job!=\"x\"}", false, "POST", "0 0 0"},
		"all":                    {"match[]={__name__=~\".%2b\"}", false, "POST", "0 0 0"},
		"all of a class":         {"match[]={job=~\"[^x]*\"}", false, "POST", "0 0 0"},
		"in a form":              {"match[]=a&match[]=b", true, "POST", "0 0 3"},
		"in a form, by DELETE":   {"match[]=a&match[]=b", true, "DELETE", "0 0 3"},
		"range":                  {"match[]=a&start=%[1]d&end=%[1]d", false, "PUT", "2 3 3"},
		"end before start":       {"match[]=a&start=20&end=10", false, "POST", "3 3 3"},
		"times as RFC 3339":      {"match[]=a&start=1970-01-01T00:00:00Z&end=2999-01-01T00:00:00Z", false, "POST", "0 3 3"},
		"times as the two edges": {"match[]=a&start=-292273086-05-16T16:47:06Z&end=292277025-08-18T07:12:54.999999999Z", false, "POST", "0 3 3"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t, nil)
			var last int64
			for _, s := range []string{"a", "b", "c"} {
				last = i.write(t, s, 1, 2, 3)
			}
			params := tc.params
			if name == "range" {
				params = fmt.Sprintf(params, last-1)
			}
			const target = "/api/v1/admin/tsdb/delete_series"
			before, _ := i.FSM.Applied()
			var a answer
			if tc.form {
				a = i.form(tc.method, target, params)
			} else {
				a = i.do(tc.method, target+"?"+params, "")
			}
			require.Equal(t, 204, a.code, a.text)
			after, _ := i.FSM.Applied()
			require.LessOrEqual(t, after, before+1, "a call is one entry")
			left := ""
			for _, s := range []string{"a", "b", "c"} {
				text := i.get("/api/v1/query?query=count_over_time(" + s + "[1h])").text
				n := 0
				for want := 1; want <= 3; want++ {
					if strings.Contains(text, fmt.Sprintf(`,"%d"]`, want)) {
						n = want
					}
				}
				left += fmt.Sprintf(" %d", n)
			}
			require.Equal(t, " "+tc.left, left)
		})
	}
}

// A snapshot that is not on all nodes says so.
func TestSnapshotWithoutANode(t *testing.T) {
	i := newInstance(t, nil)
	const target = "/api/v1/admin/tsdb/snapshot"
	require.NotContains(t, i.do(http.MethodPost, target, "").json(t), "warnings")
	i.Set(solo.State{Away: []string{"n3"}})
	a := i.do(http.MethodPost, target, "")
	require.Equal(t, 200, a.code, a.text)
	require.NotEmpty(t, a.json(t)["data"].(map[string]any)["name"])
	require.Equal(t, []any{"node n3 is away and may never have this snapshot"}, a.json(t)["warnings"])
}

func TestAdminErrors(t *testing.T) {
	i := newInstance(t, nil)
	noLeader := solo.State{ProposeErr: cluster.ErrNoLeader}
	for name, tc := range map[string]struct {
		state solo.State
		path  string
		code  int
		typ   string
		text  string
	}{
		"no match":          {solo.State{}, "delete_series", 400, "bad_data", "no match[] parameter provided"},
		"bad match":         {solo.State{}, "delete_series?match[]={", 400, "bad_data", `invalid parameter "match[]"`},
		"empty match":       {solo.State{}, "delete_series?match[]={}", 400, "bad_data", "match[] must contain at least one non-empty matcher"},
		"all series":        {solo.State{}, `delete_series?match[]=a&match[]={job=~".*",x=~"(?:)|^.%2b$"}`, 400, "bad_data", "match[] must contain at least one non-empty matcher"},
		"no label name":     {solo.State{}, `delete_series?match[]={""=""}`, 400, "bad_data", "match[] must contain at least one non-empty matcher"},
		"bad start":         {solo.State{}, "delete_series?match[]=a&start=x", 400, "bad_data", `invalid parameter "start": invalid time value for 'start': cannot parse "x" to a valid timestamp`},
		"bad skip_head":     {solo.State{}, "snapshot?skip_head=x", 400, "bad_data", `invalid parameter "skip_head"`},
		"no leader":         {noLeader, "clean_tombstones", 503, "unavailable", "no leader"},
		"a node hangs":      {solo.State{AwaitErr: fmt.Errorf("n2: %w", context.DeadlineExceeded)}, "clean_tombstones", 504, "timeout", "n2"},
		"a node cannot":     {solo.State{AwaitErr: errors.New("n3: disk full")}, "snapshot", 500, "internal", "n3: disk full"},
		"deleted, not seen": {solo.State{AwaitErr: errors.New("n3")}, "delete_series?match[]=a", 500, "internal", ", but: n3"},
	} {
		t.Run(name, func(t *testing.T) {
			i.Set(tc.state)
			a := i.do(http.MethodPost, "/api/v1/admin/tsdb/"+tc.path, "")
			require.Equal(t, tc.code, a.code, a.text)
			require.Equal(t, tc.typ, a.json(t)["errorType"])
			require.Contains(t, a.json(t)["error"], tc.text)
		})
	}
}

func TestSnapshotName(t *testing.T) {
	i := newInstance(t, nil)
	i.write(t, "a", 1)
	a := i.do(http.MethodPost, "/api/v1/admin/tsdb/snapshot", "")
	require.Equal(t, 200, a.code, a.text)
	name := a.json(t)["data"].(map[string]any)["name"].(string)
	require.Regexp(t, `^\d{8}T\d{6}Z-[0-9a-f]{16}$`, name)
}
