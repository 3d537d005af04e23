// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// answering runs a command against a server that answers so, and returns what it asked for.
func answering(t *testing.T, status int, answer string, args ...string) (asked, out string, code int) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.Path + " " + r.FormValue("id")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	defer s.Close()
	var b bytes.Buffer
	code = run(t.Context(), append(args, "--url="+s.URL+"/p"), &b, &b)
	return asked, b.String(), code
}

func TestPeersCommand(t *testing.T) {
	const answer = `{"status":"success","data":{"leader":"n1","cluster_id":"c","nodes":[
		{"id":"n1","role":"leader","raft_address":"h1:1","gossip_address":"h1:2","http_address":"h1:3","applied_index":70,"commit_index":70,"voter":true,"alive":true},
		{"id":"n2","role":"nonvoter","raft_address":"h2:1","gossip_address":"h2:2","http_address":"h2:3","applied_index":60,"lag":10,"alive":true,"recovering":"wiped","disk":"low","catch_up":{}},
		{"id":"n3","role":"unreachable","raft_address":"h3:1","voter":true,"err":"no\nanswer"}]}}`
	asked, out, code := answering(t, 200, answer, "peers")
	require.Zero(t, code, out)
	require.Equal(t, "GET /p/api/v1/cluster ", asked)
	require.Equal(t, `NODE  ROLE         VOTER  ALIVE  RAFT  GOSSIP  HTTP  APPLIED  LAG  NOTES
n1    leader       true   true   h1:1  h1:2    h1:3  70       0    -
n2    nonvoter     false  true   h2:1  h2:2    h2:3  60       10   no vote: wiped; disk low; fetching a snapshot
n3    unreachable  true   false  h3:1  -       -     -        -    no answer
leader n1, cluster c
`, out)

	_, out, code = answering(t, 200, `{"status":"success","data":{"leader":"","nodes":[]}}`, "peers")
	require.Zero(t, code)
	require.Contains(t, out, "leader unknown")
	_, out, code = answering(t, 404, "not found", "peers")
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, "404")
}

func TestMembershipCommands(t *testing.T) {
	for name, tc := range map[string]struct {
		args        []string
		status      int
		answer      string
		asked, says string
		code        int
	}{
		"transfer":        {[]string{"transfer-leader"}, 200, `{"data":{"leader":"n3"}}`, "POST /p/api/v1/admin/cluster/transfer_leader ", "node n3 leads\n", exitOK},
		"transfer to":     {[]string{"transfer-leader", "--id=n2"}, 200, `{"data":{"leader":"n2"}}`, "POST /p/api/v1/admin/cluster/transfer_leader n2", "node n2 leads\n", exitOK},
		"transfer failed": {[]string{"transfer-leader", "--id=n2"}, 503, `{"error":"no leader"}`, "POST /p/api/v1/admin/cluster/transfer_leader n2", "no leader", exitFailed},
		"remove":          {[]string{"remove-peer", "--id=n2"}, 200, `{"data":{"index":77}}`, "POST /p/api/v1/admin/cluster/remove_peer n2", "node n2 removed at log index 77\n", exitOK},
		"remove refused":  {[]string{"remove-peer", "--id=n2"}, 409, `{"error":"node n2 is alive"}`, "POST /p/api/v1/admin/cluster/remove_peer n2", "409 Conflict: node n2 is alive", exitFailed},
		"remove nobody":   {[]string{"remove-peer"}, 200, ``, "", "--id", exitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			asked, out, code := answering(t, tc.status, tc.answer, tc.args...)
			require.Equal(t, tc.code, code, out)
			require.Equal(t, tc.asked, asked)
			require.Contains(t, out, tc.says)
		})
	}
	for command, args := range map[string][]string{"peers": nil, "transfer-leader": nil, "remove-peer": {"--id=n2"}} {
		var out bytes.Buffer
		require.Equal(t, exitOK, run(t.Context(), []string{command, "--help"}, &out, &out))
		require.Contains(t, out.String(), "--url")
		require.Equal(t, exitUsage, run(t.Context(), append([]string{command, "--no-such"}, args...), &out, &out))
		require.Equal(t, exitFailed, run(t.Context(), append([]string{command, "--url=http://127.0.0.1:1"}, args...), &out, &out))
	}
}

// A password that is in the address stays out of what the commands print.
func TestCommandsKeepPasswords(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusServiceUnavailable} {
		for _, answer := range []string{"Unauthorized", `{"status":"error","error":"no leader"}`} {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, answer)
			}))
			for _, command := range []string{"peers", "transfer-leader", "digest", "healthcheck"} {
				var out bytes.Buffer
				at := strings.Replace(s.URL, "http://", "http://admin:hunter2@", 1)
				require.NotZero(t, run(t.Context(), []string{command, "--url=" + at}, &out, &out))
				require.Contains(t, out.String(), "answers "+strconv.Itoa(status))
				require.NotContains(t, out.String(), "hunter2", command)
			}
			s.Close()
		}
	}
}
