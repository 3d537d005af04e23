// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/admin/fill"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// TestNoQuorum kills two of three nodes. The third refuses writes and reads that must be fresh, in the way that
// makes clients and load balancers come again or go elsewhere, goes on answering local reads, and all is well
// again when the others return.
func TestNoQuorum(t *testing.T) {
	const staleness = 2 * time.Second
	c := harness.New(t, "--query.max-staleness="+staleness.String())
	n, cl := follower(t, c)
	row := fill.Grid{Job: "a", Series: 1, Start: time.Now().UnixMilli(), Step: 1, Count: 1}
	require.NoError(t, cl.Write(t.Context(), row.Make(1)))
	_, err := cl.At(client.Linearizable).Query(t.Context(), "grid", row.Start)
	require.NoError(t, err)
	for _, other := range c.Followers(n) {
		require.NoError(t, other.Kill())
	}

	later := row
	later.Start += 10
	body, err := client.Encode(later.Make(2))
	require.NoError(t, err)
	resp, err := cl.WriteBody(t.Context(), body)
	require.NoError(t, err)
	requireRetryable(t, resp)

	awaitStale(t, cl, row.Start)
	resp, err = cl.At(client.Linearizable).Do(t.Context(), http.MethodGet, "/api/v1/query?query=1", nil, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, resp.Status, "linearizable read: %s", resp.Body)
	requireGrid(t, cl.At(client.Local), row.Start)
	requireUnready(t, n)

	harness.Start(t, c)
	require.NoError(t, cl.Write(t.Context(), later.Make(2)))
	for _, other := range c.Nodes {
		requireGrid(t, other.Client().At(client.Linearizable), row.Start)
	}
}

func requireRetryable(t *testing.T, resp *client.Response) {
	t.Helper()
	require.Equal(t, http.StatusServiceUnavailable, resp.Status, "%s", resp.Body)
	require.NotEmpty(t, resp.Header.Get("Retry-After"))
}

// awaitStale waits until reads at the default level are refused.
func awaitStale(t *testing.T, cl *client.Client, at int64) {
	t.Helper()
	harness.Await(t, 15*time.Second, "bounded reads to be refused", func(ctx context.Context) error {
		for _, level := range []string{"", client.Bounded} {
			resp, err := cl.At(level).Do(ctx, http.MethodGet, "/api/v1/query?query=grid&time="+client.Seconds(at), nil, nil)
			if err != nil {
				return err
			}
			if resp.Status != http.StatusServiceUnavailable {
				return fmt.Errorf("level %q: %w %d", level, client.ErrStatus, resp.Status)
			}
		}
		return nil
	})
}

func requireGrid(t *testing.T, cl *client.Client, at int64) {
	t.Helper()
	defer cl.Close()
	got, err := cl.Query(t.Context(), "grid", at)
	require.NoError(t, err)
	require.Len(t, got.Series, 1)
}

func requireUnready(t *testing.T, n *local.Server) {
	t.Helper()
	cl := n.Client()
	defer cl.Close()
	harness.Await(t, 15*time.Second, n.Name+" to be unready", func(ctx context.Context) error {
		resp, err := cl.Do(ctx, http.MethodGet, "/-/ready", nil, nil)
		if err != nil {
			return err
		}
		if resp.Status == http.StatusOK {
			return fmt.Errorf("/-/ready: %w 200", client.ErrStatus)
		}
		return nil
	})
}
