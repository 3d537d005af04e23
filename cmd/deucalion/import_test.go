// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestImportCommand(t *testing.T) {
	dir := t.TempDir()
	const older, newer = "01HZZZZZZZZZZZZZZZZZZZZZZZ", "01J00000000000000000000000"
	for _, name := range []string{
		newer + "/meta.json", newer + "/index", newer + "/chunks/000001", newer + "/chunks/000002", newer + "/deletion-mark.json",
		older + "/meta.json", older + "/index", older + "/tombstones", older + "/chunks/000001", "wal/00000000", "lock",
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(name), 0o644))
	}
	const good = `{"status":"success","data":{"index":9,"blocks":[{"ulid":"X","min_time":0,"max_time":1000,"series":2,"samples":30}],"samples":30,"duplicates":4,"warnings":["block X: beware"]}}`
	status, answer, got := 200, good, []string{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = nil
		for in := tar.NewReader(r.Body); ; {
			h, err := in.Next()
			if err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
			b, err := io.ReadAll(in)
			require.NoError(t, err)
			got = append(got, h.Name+" "+string(b))
		}
		require.Equal(t, "POST /p/api/v1/admin/tsdb/import", r.Method+" "+r.URL.Path)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	defer s.Close()
	var help bytes.Buffer
	require.Zero(t, run(t.Context(), []string{"import", "--help"}, &help, &help), help.String())
	call := func(dir string) (string, int) {
		var out bytes.Buffer
		code := run(t.Context(), []string{"import", "--url=" + s.URL + "/p", dir}, &out, &out)
		return out.String(), code
	}
	out, code := call(dir)
	require.Zero(t, code, out)
	require.Contains(t, out, "sent 100% of")
	require.Contains(t, out, "warning: block X: beware\n")
	require.Contains(t, out, "X  1970-01-01T00:00:00Z to 1970-01-01T00:00:01Z  2 series  30 samples")
	require.Contains(t, out, "imported at log index 9: 30 samples, of them 4 were there already")
	var want []string
	for _, name := range []string{"/meta.json", "/index", "/tombstones", "/chunks/000001"} {
		want = append(want, older+name+" "+older+name)
	}
	for _, name := range []string{"/meta.json", "/index", "/chunks/000001", "/chunks/000002"} {
		want = append(want, newer+name+" "+newer+name)
	}
	require.Equal(t, want, got, "older blocks first, and nothing else than blocks")

	out, code = call(filepath.Join(dir, older))
	require.Zero(t, code, out)
	require.Len(t, got, 4, "one block")
	require.Contains(t, got[0], "meta.json ")

	status, answer = 400, `{"status":"error","errorType":"bad_data","error":"import refused: x"}`
	out, code = call(dir)
	require.Equal(t, 1, code)
	require.Contains(t, out, "import refused: x")
	out, code = call(filepath.Join(dir, "wal"))
	require.Equal(t, 1, code)
	require.Contains(t, out, "no blocks in")
	_, code = call(filepath.Join(dir, "nowhere"))
	require.Equal(t, 2, code)
}
