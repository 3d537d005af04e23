// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

// A node on its own waits for nobody: it is ready before anyone would begin an election, which takes a second. The best of
// several starts counts, for the machine may be busy.
func TestSingleNodeIsReadyAtOnce(t *testing.T) {
	n := startNode(t, cluster.Config{})
	n.waitReady()
	n.writeMany(0, 50)
	require.NotEmpty(t, n.ClusterID())
	id := n.ID()
	best := time.Hour
	for range 3 {
		n.stop()
		start := time.Now()
		n.start()
		n.waitReady()
		best = min(best, time.Since(start))
	}
	require.Less(t, best, time.Second)
	require.Equal(t, id, n.ID(), "the id is kept")
	require.Equal(t, 50, n.count())

	n.writeMany(50, 60)
	n.crash()
	n.start()
	n.waitReady()
	require.Equal(t, 60, n.count(), "the log is replayed before the node is ready")
}

func TestThreeNodes(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	for i, n := range nodes {
		n.mustWrite(i)
	}
	for i, n := range nodes {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		index, err := n.ReadIndex(ctx)
		require.NoError(t, err)
		require.NoError(t, n.fsm.Wait(ctx, index))
		require.Equal(t, 3, n.count(), "node %d", i)
		away, err := n.AwaitAll(ctx, index, "")
		require.NoError(t, err)
		require.Empty(t, away)
		_, err = n.AwaitAll(ctx, index, "no such task")
		for _, m := range nodes {
			require.ErrorContains(t, err, "node "+m.ID())
		}
		require.Equal(t, nodes[0].ClusterID(), n.ClusterID())
		require.Less(t, n.Staleness(), 5*time.Second)

		cancel()
		n.eventually("three voters that answer, one of them the leader", func() bool {
			all, leaders := n.Nodes(t.Context()), 0
			for _, s := range all {
				if !s.Alive || !s.Voter || s.AppliedIndex == 0 || s.Version != "v1" {
					return false
				}
				if s.Role == cluster.RoleLeader {
					leaders++
				}
			}
			return len(all) == 3 && leaders == 1
		})
	}
	nodes[0].StopServing()
	require.ErrorIs(t, nodes[0].Ready(), cluster.ErrStopped)
}

// Reads on every node see what was acknowledged before on any.
func TestReadIndexSeesEarlierWrites(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	for i := range 60 {
		nodes[i%3].mustWrite(i)
		r := nodes[(i+1)%3]
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		index, err := r.ReadIndex(ctx)
		require.NoError(t, err)
		require.NoError(t, r.fsm.Wait(ctx, index))
		require.Equal(t, i+1, r.count())
		cancel()
	}
}

func TestLeaderLost(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	leader, rest := leaderOf(t, nodes)
	leader.writeMany(0, 20)
	leader.crash()
	start := time.Now()
	rest[0].mustWrite(20)
	require.Less(t, time.Since(start), 8*time.Second) // two elections, should the first have no winner
	index := rest[1].mustWrite(21)
	away, err := rest[0].AwaitAll(t.Context(), index, "")
	require.NoError(t, err)
	require.Equal(t, []string{leader.ID()}, away, "a dead node is not waited for")

	// The old leader comes back, under other ports, with everything.
	leader.start()
	leader.waitReady()
	leader.waitCount(22)
	leader.mustWrite(22)

	// Without a majority a write ends in ErrNoLeader, in time.
	a, others := leaderOf(t, nodes)
	for _, n := range others {
		n.crash()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err = a.write(ctx, 23)
	require.ErrorIs(t, err, cluster.ErrNoLeader)
	ctx, cancel = context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err = a.ReadIndex(ctx)
	require.ErrorIs(t, err, cluster.ErrNoLeader)
	require.Eventually(t, func() bool { return a.Staleness() > time.Second }, 60*time.Second, 10*time.Millisecond)
}

// A graceful stop of the leader costs the others' clients nothing but a retry.
func TestLeaderStopsGracefully(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	leader, rest := leaderOf(t, nodes)
	var wg sync.WaitGroup
	wg.Go(leader.stop)
	for i := range 40 {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		_, err := rest[i%2].write(ctx, i)
		cancel()
		require.NoError(t, err)
	}
	wg.Wait()
	_, err := leader.write(context.Background(), 99)
	require.ErrorIs(t, err, cluster.ErrStopped)
	leader.start()
	leader.waitReady()
	leader.waitCount(40)
}

// A leader that stops and cannot hand over makes no snapshot first: all writes would wait for that.
func TestLeaderStopsWithoutHandingOver(t *testing.T) {
	nodes := startCluster(t, nil)
	leader, rest := leaderOf(t, nodes)
	leader.HoldTransfer(true)
	release := leader.HoldSnapshots()
	defer release()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		leader.stop()
	}()
	rest[0].eventually("another leader", func() bool {
		id, ok := rest[0].Leader()
		return ok && id != leader.ID()
	})
	rest[0].mustWrite(1)
	release()
	<-stopped
}

// All nodes come back at once with new addresses; each knows only one stale peer address and one good one.
func TestAllNodesWithNewAddresses(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	nodes[0].writeMany(0, 30)
	for _, n := range nodes {
		n.crash()
	}
	for i, n := range nodes {
		n.cfg.Peers = []string{"127.0.0.1:1"}
		if i > 0 {
			n.cfg.Peers = append(n.cfg.Peers, nodes[0].GossipAddress())
		}
		n.start()
	}
	for i, n := range nodes {
		n.waitReady()
		n.waitCount(30 + i)
		n.mustWrite(30 + i)
		n.waitCount(30 + i + 1)
	}
}
