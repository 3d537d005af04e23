// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/storage"
)

// spoil changes the tombstones of all blocks in the snapshot dir, and puts its checksums right: it verifies, and cannot
// be restored.
func spoil(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "blocks", "*", "tombstones"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.Remove(name)) // other snapshots have links to it
		b[0] ^= 1
		require.NoError(t, os.WriteFile(name, b, 0o644))
	}
	sealSnapshot(t, filepath.Join(dir, "manifest.json"))
}

// A snapshot that cannot be restored is set aside; the one before it and the log, or the other nodes, give back what was
// in it.
func TestRestoreFallsBack(t *testing.T) {
	t.Parallel()
	for _, all := range []bool{false, true} {
		name := "the one before"
		if all {
			name = "none is left"
		}
		t.Run(name, func(t *testing.T) {
			nodes := startCluster(t, func(c *cluster.Config) { c.TrailingLogBytes = 1 })
			nodes[0].writeMany(0, 20)
			_, rest := leaderOf(t, nodes)
			bad := rest[0]
			bad.waitCount(20)
			require.NoError(t, bad.Snapshot(t.Context()))
			nodes[0].writeMany(20, 40)
			bad.waitCount(40)
			require.NoError(t, bad.Snapshot(t.Context()))
			bad.crash()
			newest, _ := bad.newest()
			for _, dir := range bad.snapshotDirs() {
				if all || dir == newest {
					spoil(t, dir)
				}
			}
			bad.start()
			bad.waitReady()
			bad.waitCount(40)
			require.NoDirExists(t, newest)
			require.DirExists(t, filepath.Dir(newest)+".damaged")
			require.Positive(t, bad.metric("deucalion_cluster_heals_total"))
			bad.mustWrite(40)
		})
	}
}

// What rots in the files that a delete replaces is found on a running node, and the node gets well by a restart.
func TestRottenMetaIsRepaired(t *testing.T) {
	t.Parallel()
	fatal := make(chan error, 3)
	var nodes []*testNode
	for i := range 3 {
		cfg := cluster.Config{
			NodeID: []string{"n0", "n1", "n2"}[i], BootstrapExpect: 3,
			OnFatal: func(err error) { fatal <- err },
		}
		for _, n := range nodes {
			cfg.Peers = append(cfg.Peers, n.GossipAddress())
		}
		nodes = append(nodes, startNodeWith(t, cfg, 0, storage.Options{ScrubInterval: 200 * time.Millisecond}, nil))
	}
	for _, n := range nodes {
		n.waitReady()
	}
	nodes[0].writeMany(0, 20)
	_, rest := leaderOf(t, nodes)
	bad := rest[0]
	bad.waitCount(20)
	require.NoError(t, bad.Snapshot(t.Context()))
	files := func() []string {
		found, err := filepath.Glob(filepath.Join(bad.cfg.Dir, "live", "blocks-*", "*", "meta.json"))
		require.NoError(t, err)
		return found
	}
	bad.eventually("a block", func() bool { return len(files()) > 0 })
	b, err := os.ReadFile(files()[0])
	require.NoError(t, err)
	at := strings.Index(string(b), `"maxTime": `) + len(`"maxTime": `) + 1
	b[at] ^= 1
	f, err := os.OpenFile(files()[0], os.O_RDWR, 0) // in place: the snapshot has a link to it
	require.NoError(t, err)
	_, err = f.WriteAt(b, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	select {
	case err = <-fatal:
	case <-time.After(time.Minute):
		t.Fatal("the damage was not found")
	}
	require.ErrorContains(t, err, "meta.json")
	bad.crash()
	bad.start()
	bad.waitReady()
	bad.waitCount(20)
	require.Positive(t, bad.metric("deucalion_cluster_heals_total"), "the snapshot that had a link to it")
	require.NoError(t, bad.Snapshot(t.Context()))
}
