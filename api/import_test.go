// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

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
