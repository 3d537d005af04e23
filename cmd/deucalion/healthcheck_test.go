// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHealthcheckCommand(t *testing.T) {
	hung := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/-/ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/p/-/ready", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no leader", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/-/ready", http.StatusFound) })
	mux.HandleFunc("/hangs", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hung:
		case <-r.Context().Done():
		}
	})
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	t.Cleanup(func() {
		close(hung)
		plain.Close()
		secure.Close()
	})
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"ready":       {[]string{"--url=" + plain.URL + "/-/ready"}, 0, ""},
		"not ready":   {[]string{"--url=" + plain.URL + "/p/-/ready"}, 1, "503 Service Unavailable: no leader"},
		"elsewhere":   {[]string{"--url=" + plain.URL + "/moved"}, 1, "302"},
		"hangs":       {[]string{"--url=" + plain.URL + "/hangs", "--timeout=50ms"}, 1, "deadline exceeded"},
		"down":        {[]string{"--url=http://127.0.0.1:1"}, 1, "refused"},
		"certificate": {[]string{"--url=" + secure.URL + "/-/ready"}, 1, "certificate"},
		"any":         {[]string{"--url=" + secure.URL + "/-/ready", "--insecure"}, 0, ""},
		"help":        {[]string{"--help"}, 0, "/-/healthy"},
		"flag":        {[]string{"--no-such"}, 1, "unknown long flag"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			require.Equal(t, tc.code, run(t.Context(), append([]string{"healthcheck"}, tc.args...), &out, &out), out.String())
			if tc.says == "" {
				require.Empty(t, out.String())
			}
			require.Contains(t, out.String(), tc.says)
		})
	}
}
