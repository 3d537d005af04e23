// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/admin/fill"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// minBlock is how many bytes of blocks, at least, each node must have before the cleanup is of interest.
const minBlock = 1 << 20

// TestCleanTombstones deletes most of what lies in blocks: when the call on a follower returns, every node has
// its disk space back.
func TestCleanTombstones(t *testing.T) {
	c := harness.New(t)
	_, cl := follower(t, c)
	start := time.Now().Add(-50 * time.Minute).UnixMilli()
	model := client.Data{}
	for seed, job := range []string{"keep", "drop", "drop2", "drop3"} {
		rows := fill.Grid{Job: job, Series: 50, Start: start, Step: 1000, Count: 1200}.Make(uint64(seed))
		require.NoError(t, cl.Write(t.Context(), rows))
		fill.Merge(model, rows)
	}
	before := awaitBlocks(t, c)

	require.NoError(t, cl.Delete(t.Context(), url.Values{"match[]": {`{job=~"drop.*"}`}}))
	require.NoError(t, cl.Clean(t.Context()))
	for _, n := range c.Nodes {
		after := blockBytes(t, n)
		t.Logf("%s: %d bytes of chunks before, %d after", n.Name, before[n.Name], after)
		require.Less(t, after, before[n.Name]/2, "bytes of chunks of %s", n.Name)
	}
	for _, job := range []string{"drop", "drop2", "drop3"} {
		fill.Erase(model, job, 0, start*2)
	}
	requireData(t, c, client.Local, model, "cleaned")
}

// awaitBlocks brings what was written into blocks on every node and tells their sizes. A user snapshot is what
// freezes memtables; the copy that it leaves is removed, for its links would keep the space.
func awaitBlocks(t *testing.T, c *local.Cluster) map[string]int64 {
	t.Helper()
	_, cl := follower(t, c)
	name, err := cl.Snapshot(t.Context())
	require.NoError(t, err)
	sizes := map[string]int64{}
	for _, n := range c.Nodes {
		require.NoError(t, os.RemoveAll(filepath.Join(n.Dir, "snapshots", name)))
		harness.Await(t, 60*time.Second, "blocks on "+n.Name, func(context.Context) error {
			if sizes[n.Name] = blockBytes(t, n); sizes[n.Name] < minBlock {
				return fmt.Errorf("%d bytes of chunks", sizes[n.Name])
			}
			return nil
		})
	}
	return sizes
}

// blockBytes sums the chunk files of the blocks in the live directory of a node.
func blockBytes(t *testing.T, n *local.Server) int64 {
	t.Helper()
	// <live>/<store>/<block>/chunks/<file>, wherever the storage keeps its blocks.
	files := []string{}
	for _, depth := range []string{"*", "*/*", "*/*/*"} {
		found, err := filepath.Glob(filepath.Join(n.Dir, "live", depth, "chunks", "[0-9]*"))
		require.NoError(t, err)
		files = append(files, found...)
	}
	sum := int64(0)
	for _, f := range files {
		if info, err := os.Stat(f); err == nil { // a merge may remove it meanwhile
			sum += info.Size()
		}
	}
	return sum
}
