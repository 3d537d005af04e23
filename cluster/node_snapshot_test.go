// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

// pendingTwice refuses the first two snapshots as Raft does when a change of the configuration is not applied yet.
func pendingTwice(c *cluster.Config) (asked *atomic.Int64) {
	asked = new(atomic.Int64)
	c.SetSnapshotError(func() error {
		if asked.Add(1) <= 2 {
			return errors.New("cannot take snapshot now, wait until the configuration entry at 9 has been applied (have applied 8)")
		}
		return nil
	})
	return asked
}

// A snapshot that a change of the configuration has kept Raft from making is still due: no more log is needed for it.
func TestSnapshotAfterAConfigurationChange(t *testing.T) {
	t.Parallel()
	cfg := cluster.Config{NodeID: "n0", SnapshotLogBytes: 64 << 10}
	asked := pendingTwice(&cfg)
	n := startNode(t, cfg)
	n.waitReady()
	for i := 0; asked.Load() == 0; i++ {
		n.fill(i, i+1)
	}
	n.eventually("a snapshot", func() bool { return n.metric("deucalion_raft_snapshots_total") > 0 })
	require.Len(t, n.snapshotDirs(), 1, "nothing else counts as one")
}

// The last one of a node that stops is made, too.
func TestSnapshotAtTheStopAfterAConfigurationChange(t *testing.T) {
	t.Parallel()
	cfg := cluster.Config{NodeID: "n0"}
	asked := pendingTwice(&cfg)
	n := startNode(t, cfg)
	n.waitReady()
	n.mustWrite(1)
	n.stop()
	require.EqualValues(t, 3, asked.Load())
	require.Len(t, n.snapshotDirs(), 1)
}
