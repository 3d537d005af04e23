// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/admin/fill"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// compareTools lets promtool query each server.
func compareTools(t *testing.T, c *local.Cluster, stock *local.Server, data client.Data) {
	t.Helper()
	at := client.Seconds(newQuietTimes(data).at(0.9))
	for _, args := range [][]string{
		{"instant", "--time=" + at, "", "sort(sum by (mode) (node_cpu_seconds_total))"},
		{"series", "--match=up", ""},
		{"labels", "", "job"},
	} {
		var want string
		for i, s := range servers(c, stock) {
			got := promtool(t, s, args)
			if i == 0 {
				want = got
				require.NotEmpty(t, want)
			}
			require.Equal(t, want, got, "promtool query %v on %s", args, s.Name)
		}
	}
}

// promtool runs a query; the empty argument stands for the server.
func promtool(t *testing.T, s *local.Server, args []string) string {
	t.Helper()
	full := []string{"query"}
	for _, a := range args {
		if a == "" {
			a = "http://" + s.Addr
		}
		full = append(full, a)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "promtool", full...).CombinedOutput()
	require.NoError(t, err, "promtool %v: %s", full, out)
	return string(out)
}

// TestStockOpensSnapshots takes a user snapshot on a follower and lets a stock Prometheus open that of each node.
func TestStockOpensSnapshots(t *testing.T) {
	c := harness.New(t)
	follower := c.Followers(harness.Leader(t, c))[0]
	cl := follower.Client().At(client.Linearizable)
	t.Cleanup(cl.Close)
	grid := fill.Grid{Job: "a", Series: 50, Start: time.Now().Add(-55 * time.Minute).UnixMilli(), Step: 5000, Count: 600}
	require.NoError(t, cl.Write(t.Context(), grid.Make(1)))
	want, err := cl.ReadAll(t.Context())
	require.NoError(t, err)
	require.Equal(t, 50*600, want.Len())

	name, err := cl.Snapshot(t.Context())
	require.NoError(t, err)
	for _, n := range c.Nodes {
		data := filepath.Join(t.TempDir(), "data")
		// A copy: a running Prometheus writes into its directory, and the files of a snapshot are shared.
		require.NoError(t, os.CopyFS(data, os.DirFS(filepath.Join(n.Dir, "snapshots", name))))
		s := harness.Stock(t, local.StockOptions{Data: data})
		sc := s.Client()
		got, err := sc.ReadAll(t.Context())
		require.NoError(t, err)
		require.Empty(t, client.Diff(want, got, 10), "snapshot of %s in a stock Prometheus", n.Name)
		at := grid.Start + 1_800_001
		compare(t, []*local.Server{s.Server, n}, "rate over the snapshot of "+n.Name, func(cl *client.Client) (*client.Result, error) {
			return cl.Query(t.Context(), "sum by (job) (avg_over_time(grid[5m]))", at)
		})
		sc.Close()
		require.NoError(t, s.Close())
	}
}
