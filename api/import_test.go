// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/api/internal/solo"
	"github.com/deucaliondb/deucalion/cluster"
)

func TestImportEndpoint(t *testing.T) {
	const path = "/api/v1/admin/tsdb/import"
	off := newInstance(t, func(c *api.Config) { c.EnableAdmin = false })
	require.Contains(t, off.do(http.MethodPost, path, "blocks").text, "admin APIs disabled")

	i := newInstance(t, nil)
	i.Set(solo.State{ImportIndex: 7})
	for _, method := range []string{http.MethodPost, http.MethodPut} {
		a := i.do(method, path, "blocks")
		require.Equal(t, 200, a.code, a.text)
		require.JSONEq(t, `{"status":"success","data":{"index":7,"blocks":null,"samples":6,"duplicates":1}}`, a.text)
		require.Equal(t, "7", a.header.Get("X-Deucalion-Index"))
	}
	for name, tc := range map[string]struct {
		state solo.State
		code  int
		typ   string
		retry string
	}{
		"refused":   {solo.State{ImportErr: fmt.Errorf("%w: not a block", cluster.ErrImportRefused)}, 400, "bad_data", ""},
		"too old":   {solo.State{ImportErr: cluster.ErrLevel}, 503, "unavailable", ""},
		"busy":      {solo.State{ImportErr: cluster.ErrImportBusy}, 503, "unavailable", "10"},
		"no leader": {solo.State{ImportErr: cluster.ErrNoLeader}, 503, "unavailable", "10"},
		"half":      {solo.State{ImportIndex: 7, ImportErr: errors.New("node n2: out of reach")}, 500, "internal", ""},
	} {
		i.Set(tc.state)
		a := i.do(http.MethodPost, path, "blocks")
		require.Equal(t, tc.code, a.code, name)
		require.Equal(t, tc.typ, a.json(t)["errorType"], name)
		require.Contains(t, a.text, tc.state.ImportErr.Error(), name)
		require.Equal(t, tc.retry, a.header.Get("Retry-After"), name)
	}
}

// fastListener makes a hundredth of each read deadline.
type fastListener struct{ net.Listener }

func (l fastListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return fastConn{c}, err
}

type fastConn struct{ net.Conn }

func (c fastConn) SetReadDeadline(t time.Time) error {
	if !t.IsZero() {
		t = time.Now().Add(time.Until(t) / 100)
	}
	return c.Conn.SetReadDeadline(t)
}

func TestImportOfASilentClientEnds(t *testing.T) {
	const path = "/api/v1/admin/tsdb/import"
	i := newInstance(t, nil)
	i.Set(solo.State{ImportIndex: 7})
	server := httptest.NewUnstartedServer(i.handler)
	server.Listener = fastListener{server.Listener}
	server.Start()
	t.Cleanup(server.Close)
	body, sender := io.Pipe()
	never := time.AfterFunc(45*time.Second, func() { _ = sender.CloseWithError(errors.New("the server waits for ever")) })
	t.Cleanup(func() { never.Stop(); _ = sender.Close() })
	go func() { _, _ = sender.Write([]byte("blo")) }()
	res, err := server.Client().Post(server.URL+path, "", body)
	require.NoError(t, err)
	text, err := io.ReadAll(res.Body)
	require.NoError(t, errors.Join(err, res.Body.Close()))
	require.Equal(t, 503, res.StatusCode)
	require.Contains(t, string(text), "timeout")

	res, err = server.Client().Post(server.URL+path, "", strings.NewReader("blocks"))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, 200, res.StatusCode)
}
