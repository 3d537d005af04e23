// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

const minFree = 1 << 30

// startWithDisks starts three nodes whose free bytes the test sets.
func startWithDisks(t *testing.T) (nodes []*testNode, free map[string]*atomic.Int64) {
	free = map[string]*atomic.Int64{}
	nodes = startCluster(t, func(c *cluster.Config) {
		f := &atomic.Int64{}
		f.Store(10 * minFree)
		free[c.NodeID] = f
		c.MinFree = minFree
		c.SetFree(f.Load)
	})
	return nodes, free
}

func (n *testNode) waitDisk(level string) {
	n.t.Helper()
	require.Eventually(n.t, func() bool {
		for _, s := range n.Nodes(n.t.Context()) {
			if s.ID == n.ID() {
				return s.Disk == level
			}
		}
		return false
	}, 60*time.Second, 20*time.Millisecond, "node %s: disk %q", n.ID(), level)
}

// A node with little room steps aside while the others have room, and is back by itself when it has room again.
func TestDiskOneNodeLow(t *testing.T) {
	t.Parallel()
	nodes, free := startWithDisks(t)
	leader, _ := leaderOf(t, nodes)
	leader.writeMany(0, 20)
	free[leader.ID()].Store(minFree - 1)
	require.Eventually(t, func() bool {
		id, ok := leader.Leader()
		return ok && id != leader.ID()
	}, 60*time.Second, 20*time.Millisecond, "it hands over")
	require.ErrorIs(t, leader.Ready(), cluster.ErrDiskFull)
	require.Equal(t, 1.0, leader.metric("deucalion_storage_disk_low"))

	// It may still forward, and takes nothing.
	second, _ := leaderOf(t, nodes)
	require.NotEqual(t, leader.ID(), second.ID())
	require.Eventually(t, leader.DiskSpare, 60*time.Second, 20*time.Millisecond, "it has asked the others")
	before := leader.count()
	leader.writeMany(20, 60)
	for _, n := range nodes {
		if n != leader {
			n.waitCount(60)
		}
	}
	require.Equal(t, before, leader.count())
	_, err := leader.ReadIndex(t.Context())
	require.NoError(t, err)

	free[leader.ID()].Store(2 * minFree)
	leader.waitReady()
	leader.waitCount(60)
	require.Equal(t, 0.0, leader.metric("deucalion_storage_disk_low"))
}

// A voter that takes no entries would hold up every commit as soon as another one fails.
func TestMemberWithoutRoomIsNotPromoted(t *testing.T) {
	t.Parallel()
	nodes, free := startWithDisks(t)
	leader, rest := leaderOf(t, nodes)
	n := rest[0]
	for _, level := range []struct {
		name string
		free int64
		want bool
	}{{"", 10 * minFree, true}, {"critical", minFree / 4, false}, {"", 10 * minFree, true}} {
		free[n.ID()].Store(level.free)
		n.waitDisk(level.name)
		if !level.want {
			require.False(t, leader.CaughtUp(t.Context(), n.ID()))
			continue
		}
		leader.eventually("it may be promoted", func() bool { return leader.CaughtUp(t.Context(), n.ID()) })
	}
}

// A node does not begin to replay its log when there is no room for that.
func TestDiskTooFullToStart(t *testing.T) {
	free := int64(minFree/8 - 1)
	cfg := cluster.Config{Dir: t.TempDir(), MinFree: minFree, OnFatal: func(error) {}}
	cfg.SetFree(func() int64 { return free })
	s, err := cluster.OpenSnapshots(cfg.Dir, testLogger(t, "n"))
	require.NoError(t, err)
	f, err := fsm.Open(fsm.Options{Dir: cfg.Dir}, "")
	require.NoError(t, err)
	defer f.Close()
	_, err = cluster.Start(cfg, f, s)
	require.ErrorIs(t, err, cluster.ErrDiskFull)
	require.ErrorContains(t, err, "--storage.min-free")
}

// When all are low, appends are refused at once and what makes room is not; below half, nothing is taken.
func TestDiskAllLow(t *testing.T) {
	t.Parallel()
	nodes, free := startWithDisks(t)
	leader, rest := leaderOf(t, nodes)
	leader.writeMany(0, 20)
	for _, f := range free {
		f.Store(minFree - 1)
	}
	for _, n := range nodes {
		n.waitDisk("low")
	}
	for _, n := range []*testNode{leader, rest[0]} {
		require.Eventually(t, func() bool {
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := n.write(ctx, 20)
			if err == nil {
				return false
			}
			require.ErrorIs(t, err, cluster.ErrDiskFull)
			return time.Since(start) < time.Second
		}, 20*time.Second, 20*time.Millisecond)
		res, err := n.Propose(t.Context(), fsm.EncodeClean("c"+n.ID()))
		require.NoError(t, err)
		_, err = n.AwaitAll(t.Context(), res.Index, "c"+n.ID())
		require.NoError(t, err)
		res, err = n.Propose(t.Context(), fsm.EncodeUserSnapshot(fsm.UserSnapshot{ID: "s" + n.ID(), Name: "s" + n.ID()}))
		require.NoError(t, err)
		_, err = n.AwaitAll(t.Context(), res.Index, "s"+n.ID())
		require.ErrorContains(t, err, fsm.ErrLowDisk.Error())
	}
	for _, f := range free {
		f.Store(minFree / 4)
	}
	for _, n := range nodes {
		n.waitDisk("critical")
	}
	_, err := rest[0].Propose(t.Context(), fsm.EncodeClean("d"))
	require.ErrorIs(t, err, cluster.ErrDiskFull)
	for _, f := range free {
		f.Store(2 * minFree)
	}
	for _, n := range nodes {
		n.waitReady()
	}
	for i, n := range nodes { // the leader asks the others once a second
		require.Eventually(t, func() bool {
			_, err := n.write(t.Context(), 21+i)
			return err == nil
		}, 60*time.Second, 50*time.Millisecond)
	}
}
