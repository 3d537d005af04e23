// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

// transfer moves the leadership to the voter id, with "" away from n. It tries for as long as the machine may be to blame:
// Raft gives a transfer up after an election timeout, and a node that is busy does not answer in time. What was given up
// may still happen, and the nodes elect at their own will, too.
func (n *testNode) transfer(id string) {
	n.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		err := n.TransferLeadership(n.t.Context(), id)
		if err == nil && id != "" {
			return
		}
		leader, ok := n.Leader()
		if ok && (leader == id || id == "" && leader != n.ID()) {
			return
		}
		busy := err == nil || errors.Is(err, cluster.ErrTransfer) || errors.Is(err, cluster.ErrNoLeader) ||
			strings.Contains(err.Error(), "no other voter is alive") || strings.Contains(err.Error(), "does not answer")
		require.True(n.t, busy && time.Now().Before(end), "%s leads: %v", leader, err)
		time.Sleep(50 * time.Millisecond)
	}
}

func TestTransferLeadership(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	leader, _ := leaderOf(t, nodes)
	leader.transfer("")
	id, _ := leader.Leader()
	require.NotEqual(t, leader.ID(), id)
	for i, n := range nodes {
		n.mustWrite(i)
	}
	leader.waitReady()

	// To a named node, asked of each node; the answer comes when that node knows it.
	for i, asked := range nodes {
		_, rest := leaderOf(t, nodes)
		to := rest[i%2]
		asked.transfer(to.ID())
		id, ok := asked.Leader()
		require.True(t, ok)
		require.Equal(t, to.ID(), id)
		asked.transfer(to.ID()) // it leads already
		nodes[i].mustWrite(10 + i)
	}
	for _, n := range nodes {
		n.waitCount(6)
	}
}

func TestTransferLeadershipRefused(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	leader, rest := leaderOf(t, nodes)
	for _, n := range nodes {
		require.ErrorIs(t, n.TransferLeadership(t.Context(), "n9"), cluster.ErrUnknownNode)
	}
	rest[0].crash()
	for _, n := range []*testNode{leader, rest[1]} {
		err := n.TransferLeadership(t.Context(), rest[0].ID())
		require.ErrorIs(t, err, cluster.ErrRefused)
		require.ErrorContains(t, err, "does not answer")
	}
	leader.mustWrite(1)

	leader.crash()
	rest[0].back(nodes)
	rest[1].crash()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	require.ErrorIs(t, rest[0].TransferLeadership(ctx, ""), cluster.ErrNoLeader)

	alone := startNode(t, cluster.Config{})
	alone.waitReady()
	require.ErrorIs(t, alone.TransferLeadership(t.Context(), ""), cluster.ErrRefused)
	alone.mustWrite(1)
}
