// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/api/internal/solo"
	"github.com/deucaliondb/deucalion/cluster"
)

func TestDigestEndpoint(t *testing.T) {
	const path = "/api/v1/admin/cluster/digest"
	off := newInstance(t, func(c *api.Config) { c.EnableAdmin = false })
	require.Contains(t, off.do(http.MethodPost, path, "").text, "admin APIs disabled")

	i := newInstance(t, nil)
	last := i.write(t, "a", 1, 2, 3)
	require.Equal(t, 404, i.get(path).code, "it is no read")
	a := i.form(http.MethodPost, path, fmt.Sprintf("start=%d&end=%d", last-1, last))
	require.Equal(t, 200, a.code, a.text)
	require.NotEmpty(t, a.header.Get("X-Deucalion-Index"))
	data := a.json(t)["data"].(map[string]any)
	require.Equal(t, "equal", data["result"])
	node := data["nodes"].([]any)[0].(map[string]any)
	require.Equal(t, "solo", node["id"])
	samples := node["result"].(map[string]any)["ranges"].([]any)[0].(map[string]any)
	require.EqualValues(t, 2, samples["samples"])
	require.EqualValues(t, (last-1)*1000, samples["mint"])
	require.Len(t, samples["hash"], 16)

	for target, text := range map[string]string{"?start=x": "start", "?end=x": "end", "?start=2&end=1": "before"} {
		a := i.do(http.MethodPost, path+target, "")
		require.Equal(t, 400, a.code)
		require.Contains(t, a.text, text)
	}
	i.Set(solo.State{DigestErr: fmt.Errorf("%w: node n2 knows level 1", cluster.ErrLevel)})
	a = i.do(http.MethodPost, path, "")
	require.Equal(t, 503, a.code)
	require.Contains(t, a.text, "node n2 knows level 1")
	require.Empty(t, a.header.Get("Retry-After"), "to try again does not help")
	i.Set(solo.State{DigestErr: context.DeadlineExceeded})
	require.Equal(t, "1", i.do(http.MethodPost, path, "").header.Get("Retry-After"))
}
