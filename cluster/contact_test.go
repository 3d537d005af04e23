// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

// A node that hears of no majority is not ready, long before its state is too old to be read.
func TestReadyNeedsContact(t *testing.T) {
	t.Parallel()
	const stale = 10 * time.Minute
	nodes := startCluster(t, func(c *cluster.Config) { c.MaxStaleness = stale })
	_, rest := leaderOf(t, nodes)
	rest[0].crash()
	leader, rest := leaderOf(t, nodes)
	leader.waitReady()
	require.Eventually(t, func() bool { return leader.metric("deucalion_raft_voters_heard") == 2 }, 30*time.Second, 10*time.Millisecond)
	leader.waitReady()
	rest[0].crash()
	require.Eventually(t, func() bool { return leader.Ready() != nil }, 30*time.Second, 10*time.Millisecond)
	require.ErrorIs(t, leader.Ready(), cluster.ErrNotReady)
	require.ErrorContains(t, leader.Ready(), "in contact with 1 of 3 voters")
	require.Less(t, leader.Staleness(), stale)
	rest[0].start()
	leader.waitReady()
}
