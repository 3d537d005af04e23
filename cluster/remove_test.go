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

// removeDead removes id as an operator would, who tries again until all have noticed that it is dead.
func (n *testNode) removeDead(id string) {
	n.t.Helper()
	require.Eventually(n.t, func() bool {
		index, err := n.RemovePeer(n.t.Context(), id)
		if err == nil {
			require.NotZero(n.t, index)
			return true
		}
		require.ErrorIs(n.t, err, cluster.ErrRefused)
		return false
	}, 60*time.Second, 100*time.Millisecond)
}

// voting tells whether n sees id as a voter or as another member.
func (n *testNode) voting(id string) (voter, member bool) {
	for _, s := range n.Nodes(n.t.Context()) {
		if s.ID == id {
			return s.Voter, true
		}
	}
	return false, false
}

func (n *testNode) waitVoter(id string) {
	n.t.Helper()
	require.Eventually(n.t, func() bool { v, _ := n.voting(id); return v }, 60*time.Second, 20*time.Millisecond)
}

// waitGone waits until no other node sees a member that is removed.
func waitGone(t *testing.T, nodes []*testNode, id string) {
	t.Helper()
	for _, n := range nodes {
		if n.down {
			continue
		}
		require.Eventually(t, func() bool { _, m := n.voting(id); return !m }, 60*time.Second, 20*time.Millisecond, "node %s", n.ID())
	}
}

// requireEqualData compares what all nodes hold at one index.
func requireEqualData(t *testing.T, n *testNode, members int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	r, err := n.Digest(ctx, nil)
	require.NoError(t, err)
	require.Equal(t, cluster.DigestEqual, r.Result, "%+v", r)
	require.Len(t, r.Nodes, members)
}

func TestRemovePeerRefused(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	leader, rest := leaderOf(t, nodes)
	for _, n := range nodes {
		_, err := n.RemovePeer(t.Context(), "n9")
		require.ErrorIs(t, err, cluster.ErrUnknownNode)
		_, err = n.RemovePeer(t.Context(), leader.ID())
		require.ErrorIs(t, err, cluster.ErrRefused)
		require.ErrorContains(t, err, "leads")
		_, err = n.RemovePeer(t.Context(), rest[0].ID())
		require.ErrorIs(t, err, cluster.ErrRefused)
		require.ErrorContains(t, err, "is alive")
	}
	require.Len(t, leader.Nodes(t.Context()), 3)

	rest[0].stop()
	rest[1].crash()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := leader.RemovePeer(ctx, rest[0].ID())
	require.True(t, errors.Is(err, cluster.ErrNoLeader) || errors.Is(err, cluster.ErrRefused), "%v", err)
	require.Len(t, leader.Nodes(t.Context()), 3)
}

// One of the two voters that would be left has lost its memory: if the leader died then, nobody could ever be elected.
func TestRemovePeerNeverBelowTheQuorum(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, func(c *cluster.Config) { c.RecoveryWait = time.Hour })
	leader, rest := leaderOf(t, nodes)
	leader.writeMany(0, 5)
	rest[0].crash()
	rest[0].wipe()
	rest[0].back(nodes)
	rest[0].waitReady()
	rest[1].stop()
	require.Eventually(t, func() bool {
		_, err := rest[0].RemovePeer(t.Context(), rest[1].ID())
		require.ErrorIs(t, err, cluster.ErrRefused)
		return strings.Contains(err.Error(), "only 1 of 2 voters could vote")
	}, 30*time.Second, 100*time.Millisecond)
	require.Len(t, leader.Nodes(t.Context()), 3)
	leader.mustWrite(5)
}

// The other voter left hears the leader and takes no entries, so the removal is in the leader's log only: it is not done.
func TestRemovePeerIsNotDoneBeforeItIsCommitted(t *testing.T) {
	t.Parallel()
	nodes, free := startWithDisks(t)
	leader, rest := leaderOf(t, nodes)
	gone, full := rest[0], rest[1]
	leader.mustWrite(0)
	gone.crash()
	leader.eventually("it is known to be dead", func() bool {
		for _, s := range leader.Nodes(t.Context()) {
			if s.ID == gone.ID() {
				return !s.Alive && s.Role == cluster.RoleUnreachable
			}
		}
		return false
	})
	free[full.ID()].Store(minFree / 4)
	full.waitDisk("critical")
	var err error
	leader.eventually("it may be removed", func() bool {
		_, err = leader.RemovePeer(t.Context(), gone.ID())
		return !errors.Is(err, cluster.ErrRefused)
	})
	if _, member := full.voting(gone.ID()); member { // it does not lead
		require.ErrorIs(t, err, cluster.ErrNoLeader)
	}

	free[full.ID()].Store(10 * minFree)
	leader.eventually("it is removed", func() bool {
		_, err := full.RemovePeer(t.Context(), gone.ID())
		return err == nil || errors.Is(err, cluster.ErrUnknownNode)
	})
	waitGone(t, nodes, gone.ID())
}

// A dead node is removed through a follower; the others go on as two. It stays out while it is dead, and comes back with
// what it had.
func TestRemovedPeerComesBackWithItsData(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, shortRecovery)
	leader, rest := leaderOf(t, nodes)
	gone, other := rest[0], rest[1]
	leader.writeMany(0, 20)
	gone.waitCount(20)
	gone.crash()
	other.removeDead(gone.ID())
	waitGone(t, nodes, gone.ID())
	_, err := other.RemovePeer(t.Context(), gone.ID())
	require.ErrorIs(t, err, cluster.ErrUnknownNode)
	other.writeMany(20, 40)
	leader.transfer("") // two voters elect
	leader.writeMany(40, 50)
	require.Len(t, leader.Nodes(t.Context()), 2)
	requireEqualData(t, leader, 2)

	// It takes itself for a voter still, and nobody lets it disturb an election.
	for _, n := range []*testNode{leader, other} {
		n.HoldTransfer(true) // nobody is added meanwhile
	}
	gone.back(nodes)
	require.Eventually(t, func() bool {
		term := other.metric("deucalion_raft_term")
		time.Sleep(3 * time.Second) // some election timeouts
		return other.metric("deucalion_raft_term") == term
	}, 60*time.Second, time.Millisecond)
	_, member := other.voting(gone.ID())
	require.False(t, member)
	for _, n := range []*testNode{leader, other} {
		n.HoldTransfer(false)
	}
	leader.waitVoter(gone.ID())
	gone.waitReady()
	gone.waitCount(50)
	require.Empty(t, gone.recovering(), "it has not lost its memory")
	requireEqualData(t, gone, 3)

	// Its vote counts.
	leader, _ = leaderOf(t, nodes)
	require.NotSame(t, gone, leader)
	leader.crash()
	gone.mustWrite(50)
}

func TestRemovedPeerComesBackEmpty(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, shortRecovery)
	leader, rest := leaderOf(t, nodes)
	gone, other := rest[0], rest[1]
	leader.writeMany(0, 20)
	gone.stop()
	gone.wipe()
	other.removeDead(gone.ID())
	other.writeMany(20, 40)
	require.NoError(t, leader.Snapshot(t.Context()))

	for _, n := range []*testNode{leader, other} {
		n.HoldTransfer(true) // nobody is added meanwhile, whoever leads
	}
	gone.back(nodes)
	require.Never(t, func() bool { return gone.recovering() == "" }, 3*shortWait, 20*time.Millisecond,
		"with an empty log it would vote for a node that has missed its removal")
	for _, n := range []*testNode{leader, other} {
		n.HoldTransfer(false)
	}
	leader.waitVoter(gone.ID())
	gone.waitReady()
	gone.waitCount(40)
	require.Empty(t, gone.recovering())
	requireEqualData(t, gone, 3)

	leader, _ = leaderOf(t, nodes)
	require.NotSame(t, gone, leader)
	leader.crash()
	gone.mustWrite(40)
}

// A fourth node becomes a voter, dies and is removed; three are left, of which one may die.
func TestRemoveFourthPeer(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, shortRecovery)
	nodes[0].writeMany(0, 20)
	fourth := startNode(t, cluster.Config{NodeID: "n3", Peers: []string{nodes[0].GossipAddress()}, RecoveryWait: shortWait})
	leader, rest := leaderOf(t, nodes)
	leader.waitVoter("n3")
	fourth.waitCount(20)
	rest[0].transfer("n3")
	fourth.mustWrite(20)
	fourth.crash()
	nodes[1].removeDead("n3")
	waitGone(t, nodes, "n3")
	leader, rest = leaderOf(t, nodes)
	leader.crash()
	rest[0].writeMany(21, 30)
	rest[1].waitCount(30)
}
