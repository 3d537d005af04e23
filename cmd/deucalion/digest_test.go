// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDigestCommand(t *testing.T) {
	const good = `"differs":false,"result":{"state_hash":"aa","ranges":[{"mint":0,"maxt":9,"series":3,"samples":12,"hash":"cafe"}],"seconds":1.5}`
	for name, tc := range map[string]struct {
		status int
		answer string
		code   int
		says   []string
	}{
		"equal": {200, `{"data":{"result":"equal","index":77,"nodes":[{"id":"n1",` + good + `}]}}`, 0, []string{"n1    ok       3       12       cafe", "equal at log index 77"}},
		"different": {
			200, `{"data":{"result":"mismatch","index":77,"differing":["n2"],"nodes":[{"id":"n1",` + good + `},{"id":"n2","differs":true,"result":{"ranges":[{"hash":"dead"}]}}]}}`,
			1,
			[]string{"n2    DIFFERS", "dead", "mismatch at log index 77: n2"},
		},
		"unreadable": {200, `{"data":{"result":"error","nodes":[{"id":"n2","result":{"err":"checksum"}}]}}`, 2, []string{"n2    ERROR", "n2: checksum"}},
		"missing":    {200, `{"data":{"result":"incomplete","nodes":[{"id":"n1",` + good + `},{"id":"n2","missing":"out of reach"}]}}`, 2, []string{"n1    ok       3       12       cafe", "n2    MISSING", "n2: out of reach"}},
		"refused":    {503, `{"status":"error","error":"admin APIs disabled"}`, 2, []string{"admin APIs disabled"}},
		"not ours":   {404, `not found`, 2, []string{"404", "not found"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				require.Equal(t, "/p/api/v1/admin/cluster/digest", r.URL.Path)
				require.Equal(t, "POST 12 ", r.Method+" "+r.FormValue("start")+" "+r.FormValue("end"))
				w.WriteHeader(tc.status)
				_, _ = io.WriteString(w, tc.answer)
			}))
			defer s.Close()
			var out bytes.Buffer
			require.Equal(t, tc.code, run(t.Context(), []string{"digest", "--url=" + s.URL + "/p", "--start=12"}, &out, &out), out.String())
			for _, want := range tc.says {
				require.Contains(t, out.String(), want)
			}
		})
	}
	var out bytes.Buffer
	require.Equal(t, 2, run(t.Context(), []string{"digest", "--no-such"}, &out, &out))
	require.Equal(t, 2, run(t.Context(), []string{"digest", "--url=http://127.0.0.1:1"}, &out, &out))
	require.Equal(t, 0, run(t.Context(), []string{"digest", "--help"}, &out, &out))
	require.Equal(t, 2, run(t.Context(), []string{"--node.id=x", "digest"}, &out, &out), "a command comes first")
}
