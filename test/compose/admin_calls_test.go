// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compose_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/local"
)

// Admin calls may take longer than all others, and are never sent twice.
func TestAdminCalls(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(dir, "haproxy.cfg"))
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(text), " 130s"), "the timeouts of client and server")
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(text), " 130s", " 1s")), 0o644))

	var calls atomic.Int64
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/-/ready" {
			return
		}
		calls.Add(1)
		if r.URL.Query().Has("break") {
			panic(http.ErrAbortHandler)
		}
		time.Sleep(2 * time.Second)
	})
	var nodes []*local.Server
	for range 3 {
		s := httptest.NewServer(handler)
		t.Cleanup(s.Close)
		nodes = append(nodes, &local.Server{Addr: s.Listener.Addr().String()})
	}
	b := startBalancerWith(t, file, nodes)
	do := func(method, path string) (status int, sent int64) {
		cl := client.New("http://" + b.Addr)
		defer cl.Close()
		before := calls.Load()
		resp, err := cl.Do(t.Context(), method, path, nil, nil)
		require.NoError(t, err)
		return resp.Status, calls.Load() - before
	}
	status, _ := do(http.MethodPost, "/api/v1/import")
	require.Equal(t, http.StatusGatewayTimeout, status)
	_, sent := do(http.MethodGet, "/api/v1/query?break=1")
	require.Greater(t, sent, int64(1))
	for _, path := range []string{"/api/v1/admin/tsdb/clean_tombstones", "/prefix/api/v1/admin/tsdb/import", "/api/v2/admin/tsdb/snapshot"} {
		status, sent = do(http.MethodPost, path)
		require.Equal(t, http.StatusOK, status, path)
		require.EqualValues(t, 1, sent, path)
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			status, sent = do(method, path+"?break=1")
			require.Equal(t, http.StatusBadGateway, status, path)
			require.EqualValues(t, 1, sent, "%s %s", method, path)
		}
	}
}
