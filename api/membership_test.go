// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/api/internal/solo"
	"github.com/deucaliondb/deucalion/cluster"
)

func TestMembershipEndpoints(t *testing.T) {
	const transfer, remove = "/api/v1/admin/cluster/transfer_leader", "/api/v1/admin/cluster/remove_peer"
	off := newInstance(t, func(c *api.Config) { c.EnableAdmin = false })
	i := newInstance(t, nil)
	for _, path := range []string{transfer, remove} {
		require.Contains(t, off.do(http.MethodPost, path+"?id=n2", "").text, "admin APIs disabled")
		require.Equal(t, 404, i.get(path+"?id=n2").code, "it is no read")
	}
	for _, method := range []string{http.MethodPost, http.MethodPut} {
		for _, id := range []string{"", "?id=solo"} {
			a := i.do(method, transfer+id, "")
			require.Equal(t, 200, a.code, a.text)
			require.JSONEq(t, `{"status":"success","data":{"leader":"solo"}}`, a.text)
		}
		a := i.form(method, remove, "id=dead")
		require.Equal(t, 200, a.code, a.text)
		require.JSONEq(t, `{"status":"success","data":{"index":7}}`, a.text)
		require.Equal(t, "7", a.header.Get("X-Deucalion-Index"))
	}
	a := i.do(http.MethodPost, remove, "")
	require.Equal(t, 400, a.code)
	require.Contains(t, a.text, "no id parameter")

	for name, tc := range map[string]struct {
		err   error
		code  int
		typ   string
		retry string
	}{
		"unknown":       {fmt.Errorf("%w: n9 is not in the configuration", cluster.ErrUnknownNode), 404, "not_found", ""},
		"refused":       {fmt.Errorf("%w: node n2 is alive", cluster.ErrRefused), 409, "conflict", ""},
		"no leader":     {cluster.ErrNoLeader, 503, "unavailable", "1"},
		"did not go":    {cluster.ErrTransfer, 503, "unavailable", "1"},
		"shutting down": {cluster.ErrStopped, 503, "unavailable", "1"},
	} {
		i.Set(solo.State{MembershipErr: tc.err})
		for _, path := range []string{transfer, remove} {
			a := i.do(http.MethodPost, path+"?id=n2", "")
			require.Equal(t, tc.code, a.code, name)
			require.Equal(t, tc.typ, a.json(t)["errorType"], name)
			require.Contains(t, a.text, tc.err.Error(), name)
			require.Equal(t, tc.retry, a.header.Get("Retry-After"), name)
		}
	}
}
