// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api/internal/solo"
)

// multipartForm has a query and a file, which no handler wants.
func multipartForm(t *testing.T, fileBytes int) (body []byte, contentType string) {
	t.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	require.NoError(t, m.WriteField("query", "1+1"))
	require.NoError(t, m.WriteField("consistency", "local"))
	file, err := m.CreateFormFile("file", "x")
	require.NoError(t, err)
	_, err = file.Write(make([]byte, fileBytes))
	require.NoError(t, err)
	require.NoError(t, m.Close())
	return b.Bytes(), m.FormDataContentType()
}

func TestFilesInForms(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	noFiles := func() {
		t.Helper()
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, files)
	}
	i := newInstance(t, nil)
	require.Equal(t, 200, i.get("/api/v1/query?query=1").code)
	server := httptest.NewServer(i.handler)
	t.Cleanup(server.Close)
	i.Set(solo.State{Staleness: time.Hour}) // only local reads are answered
	body, contentType := multipartForm(t, 20<<20)
	for _, path := range []string{"/api/v1/query", "/api/v1/labels", "/api/v1/format_query"} {
		res, err := server.Client().Post(server.URL+path, contentType, bytes.NewReader(body))
		require.NoError(t, err)
		text, err := io.ReadAll(res.Body)
		require.NoError(t, errors.Join(err, res.Body.Close()))
		require.Equal(t, 200, res.StatusCode, "%s: %s", path, text)
	}
	server.Close() // returns when all handlers have
	noFiles()

	body, contentType = multipartForm(t, 40<<20)
	for _, path := range []string{"/api/v1/query", "/api/v1/labels", "/api/v1/admin/tsdb/snapshot"} {
		a := i.do(http.MethodPost, path, string(body), "Content-Type", contentType)
		require.Equal(t, 413, a.code, "%s: %s", path, a.text)
		require.Equal(t, "bad_data", a.json(t)["errorType"])
		noFiles()
	}
}

func TestMalformedMultipartIsRefused(t *testing.T) {
	i := newInstance(t, nil)
	a := i.do(http.MethodPost, "/api/v1/labels", "--x\r\nnothing", "Content-Type", "multipart/form-data; boundary=x")
	require.Equal(t, 400, a.code, a.text)
	require.Contains(t, a.text, "error parsing form values")
}
