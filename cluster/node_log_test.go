// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

// ship notes in the log that a remote store has got everything up to index, of the given ones.
func (n *testNode) ship(name string, index uint64) {
	n.t.Helper()
	_, err := n.Propose(n.t.Context(), fsm.EncodeShipped(fsm.Shipped{Positions: map[string]uint64{name: index}}))
	require.NoError(n.t, err)
}

// longLog writes in several rounds with a snapshot after each, so that Raft truncates what it may.
func (n *testNode) longLog() {
	n.t.Helper()
	for round := range 4 {
		n.writeMany(round*400, round*400+400)
		require.NoError(n.t, n.Snapshot(n.t.Context()))
	}
}

func TestLogIsKeptForRemoteStores(t *testing.T) {
	cfg := cluster.Config{NodeID: "a", TrailingLogBytes: 1, SnapshotEntries: 1 << 40, LogSegmentBytes: 64 << 10}
	n := startNode(t, cfg)
	n.waitReady()
	first := n.mustWrite(5000)
	n.ship("sink", first)
	n.longLog()
	b, err := n.AppliedEntry(first + 2)
	require.NoError(t, err)
	require.True(t, fsm.IsAppend(b))

	n.ship("sink", first+1000)
	n.longLog()
	_, err = n.AppliedEntry(first + 2)
	require.ErrorIs(t, err, cluster.ErrCompacted)
	b, err = n.AppliedEntry(first + 1001)
	require.NoError(t, err)
	require.NotNil(t, b)
	require.LessOrEqual(t, n.FirstLogIndex(), first+1001)

	last, _ := n.fsm.Applied()
	_, err = n.AppliedEntry(last + 1)
	require.ErrorContains(t, err, "not applied")
}

func TestLogForRemoteStoresIsBounded(t *testing.T) {
	n := startNode(t, cluster.Config{
		NodeID: "a", TrailingLogBytes: 1, SnapshotEntries: 1 << 40, LogSegmentBytes: 64 << 10, UnshippedLogBytes: 64 << 10,
	})
	n.waitReady()
	first := n.mustWrite(5000)
	n.ship("sink", first)
	n.longLog()
	_, err := n.AppliedEntry(first + 2)
	require.ErrorIs(t, err, cluster.ErrCompacted)
}
