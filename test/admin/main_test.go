// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

func TestMain(m *testing.M) { harness.Main(m) }

// withWindow writes a configuration that admits samples two hours out of order, and gives the flag for it.
func withWindow(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "deucalion.yml")
	yaml := "storage:\n  tsdb:\n    out_of_order_time_window: 2h\n"
	require.NoError(t, os.WriteFile(path, []byte(yaml), 0o644))
	return "--config.file=" + path
}

// requireData insists that every node, read at a level, has exactly want. Reads are local after calls that return
// only when all nodes have done what was asked.
func requireData(t *testing.T, c *local.Cluster, level string, want client.Data, when string) {
	t.Helper()
	for _, n := range c.Nodes {
		cl := n.Client().At(level)
		got, err := cl.ReadAll(t.Context())
		cl.Close()
		require.NoError(t, err, "%s, %s", n.Name, when)
		require.Empty(t, client.Diff(want, got, 10), "%s, %s", n.Name, when)
	}
}

// follower gives a node that does not lead, and a client of it.
func follower(t *testing.T, c *local.Cluster) (*local.Server, *client.Client) {
	t.Helper()
	n := c.Followers(harness.Leader(t, c))[0]
	cl := n.Client()
	t.Cleanup(cl.Close)
	return n, cl
}

// restartAll stops the first node gracefully and kills the others, then starts all.
func restartAll(t *testing.T, c *local.Cluster) {
	t.Helper()
	require.NoError(t, c.Nodes[0].Stop())
	require.NoError(t, c.Nodes[1].Kill())
	require.NoError(t, c.Nodes[2].Kill())
	harness.Start(t, c)
}
