// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

// A wiped follower gets a snapshot, and the leader's log no longer begins at 1.
func TestInstallSnapshot(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{cluster.LogStoreWAL, cluster.LogStoreBoltDB} {
		t.Run(kind, func(t *testing.T) {
			nodes := startCluster(t, func(c *cluster.Config) {
				c.LogStore, c.TrailingLogBytes, c.LogSegmentBytes = kind, 1, 64<<10
			})
			leader, rest := leaderOf(t, nodes)
			rest[0].crash()
			for i := range 3 {
				leader.writeMany(i*800, (i+1)*800)
				require.NoError(t, leader.Snapshot(t.Context()))
			}
			require.Greater(t, leader.FirstLogIndex(), uint64(1))
			require.NoError(t, os.RemoveAll(rest[0].cfg.Dir))
			rest[0].start()
			rest[0].waitReady()
			rest[0].waitCount(2400)
			require.NotEqual(t, uint64(1), rest[0].FirstLogIndex(), "it came by snapshot")
			rest[0].mustWrite(2400)
			rest[0].crash()
			rest[0].start()
			rest[0].waitReady()
			rest[0].waitCount(2401)
		})
	}
}

// A damaged newest snapshot costs a longer replay and nothing else.
func TestDamagedSnapshot(t *testing.T) {
	n := startNode(t, cluster.Config{TrailingLogBytes: 1, LogSegmentBytes: 64 << 10})
	n.waitReady()
	for i := range 3 {
		n.writeMany(i*700, (i+1)*700)
		require.NoError(t, n.Snapshot(t.Context()))
	}
	n.crash()
	s, err := cluster.OpenSnapshots(n.cfg.Dir, n.cfg.Logger)
	require.NoError(t, err)
	latest, ok := s.Latest()
	require.True(t, ok)
	meta := filepath.Join(filepath.Dir(latest), "meta.json")
	b, err := os.ReadFile(meta)
	require.NoError(t, err)
	b[10] ^= 1
	require.NoError(t, os.WriteFile(meta, b, 0o644))

	n.start()
	n.waitReady()
	require.Equal(t, 2100, n.count())
	require.DirExists(t, filepath.Dir(latest)+".damaged")
	require.Equal(t, 1.0, n.metric("deucalion_cluster_heals_total"))
	n.crash()

	// Both damaged: the log does not reach back, so the node refuses rather than forgets.
	require.NoError(t, os.RemoveAll(filepath.Join(n.cfg.Dir, "snapshots-raft")))
	s, err = cluster.OpenSnapshots(n.cfg.Dir, n.cfg.Logger)
	require.NoError(t, err)
	f, err := fsm.Open(fsm.Options{Dir: n.cfg.Dir}, "")
	require.NoError(t, err)
	defer f.Close()
	n.cfg.Registerer = prometheus.NewRegistry()
	_, err = cluster.Start(n.cfg, f, s)
	require.ErrorIs(t, err, cluster.ErrDamaged)
}

// A node that comes later is added, caught up and promoted; one of another cluster is not.
func TestJoinLater(t *testing.T) {
	t.Parallel()
	first := startNode(t, cluster.Config{NodeID: "a"})
	first.waitReady()
	first.writeMany(0, 20)
	second := startNode(t, cluster.Config{NodeID: "b", Peers: []string{first.GossipAddress()}})
	second.waitReady()
	second.waitCount(20)
	require.Eventually(t, func() bool {
		for _, s := range first.Nodes(t.Context()) {
			if s.ID == "b" {
				return s.Voter
			}
		}
		return false
	}, 60*time.Second, 50*time.Millisecond)
	second.mustWrite(20)

	stranger := startNode(t, cluster.Config{NodeID: "c"})
	stranger.waitReady()
	stranger.stop()
	stranger.cfg.Peers = []string{first.GossipAddress()}
	stranger.start()
	stranger.waitReady()
	require.NotEqual(t, first.ClusterID(), stranger.ClusterID())
	// Longer than the leader's reconciliation.
	require.Never(t, func() bool {
		return len(first.Nodes(t.Context())) != 2 || len(stranger.Nodes(t.Context())) != 1
	}, 1500*time.Millisecond, 100*time.Millisecond)
}

// A node is started on the data of another cluster, under the id and the address of a voter. The leader must not write
// into its log: what was acknowledged there would be gone, and it would count as a voter here without the state of this
// cluster.
func TestLeaderOfAnotherCluster(t *testing.T) {
	nodes := startCluster(t, nil)
	leader, rest := leaderOf(t, nodes)
	leader.writeMany(0, 20)
	lost := rest[0]
	own := startNode(t, cluster.Config{NodeID: lost.ID()})
	own.waitReady()
	own.mustWrite(1000)
	require.NotEqual(t, leader.ClusterID(), own.ClusterID())
	own.stop()
	own.cfg.ListenAddress, own.cfg.GossipListenAddress = lost.ListenAddress(), lost.GossipAddress()
	lost.crash()
	own.start()
	own.waitReady()

	require.Never(t, func() bool { return own.count() != 1 || own.Ready() != nil }, 5*time.Second, 20*time.Millisecond)
	own.mustWrite(1001)
	id, _ := own.Leader()
	require.Equal(t, own.ID(), id)
	for _, n := range []*testNode{leader, rest[1]} {
		n.mustWrite(30)
		n.waitCount(21)
	}
	leader.eventually("the other cluster's node alone is unreachable", func() bool {
		return !slices.ContainsFunc(leader.Nodes(t.Context()), func(s cluster.NodeStatus) bool {
			return (s.ID == own.ID()) != (s.Role == cluster.RoleUnreachable)
		})
	})
}

// Two live nodes with one id: the later one is reported and does not take over.
func TestSameIDTwice(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	_, rest := leaderOf(t, nodes)
	victim := rest[0]
	before := victim.Address()
	twin := startNode(t, cluster.Config{NodeID: victim.ID(), BootstrapExpect: 3, Peers: []string{nodes[0].GossipAddress(), nodes[1].GossipAddress()}})
	require.Eventually(t, func() bool {
		for _, n := range append(nodes, twin) {
			if n.metric("deucalion_gossip_node_id_conflicts_total") > 0 {
				return true
			}
		}
		return false
	}, 60*time.Second, 10*time.Millisecond)
	for i, n := range nodes {
		n.mustWrite(i)
		if n == victim {
			continue
		}
		n.eventually("the first one answers at its address", func() bool {
			return slices.ContainsFunc(n.Nodes(t.Context()), func(s cluster.NodeStatus) bool {
				return s.ID == victim.ID() && s.RaftAddress == before && s.Role != cluster.RoleUnreachable
			})
		})
	}
	require.Error(t, twin.Ready())
	require.Zero(t, twin.count())
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	n := startNode(t, cluster.Config{NodeID: "a", MaxInFlightBytes: 1 << 20})
	n.waitReady()
	_, err := n.Propose(t.Context(), make([]byte, cluster.MaxEntryBytes+1))
	require.ErrorIs(t, err, cluster.ErrTooLarge)

	open := func(change func(*cluster.Config)) error {
		cfg := n.cfg
		cfg.Registerer = prometheus.NewRegistry()
		change(&cfg)
		s, err := cluster.OpenSnapshots(cfg.Dir, cfg.Logger)
		require.NoError(t, err)
		f, err := fsm.Open(fsm.Options{Dir: t.TempDir()}, "")
		require.NoError(t, err)
		defer f.Close()
		node, err := cluster.Start(cfg, f, s)
		if err == nil {
			node.Crash()
		}
		return err
	}
	require.ErrorContains(t, open(func(*cluster.Config) {}), "another process")
	n.stop()
	require.ErrorContains(t, open(func(c *cluster.Config) { c.NodeID = "b" }), `belongs to node "a"`)
	require.ErrorIs(t, open(func(c *cluster.Config) { c.LogStore = cluster.LogStoreBoltDB }), cluster.ErrLogStoreMismatch)
	require.Error(t, open(func(c *cluster.Config) { c.NodeID = "a b" }))
	require.Error(t, open(func(c *cluster.Config) { c.LogStore = "x" }))
}

// An entry that cannot be applied stops the node, not the process, and is not acknowledged.
func TestFSMFailure(t *testing.T) {
	n := startNode(t, cluster.Config{})
	n.waitReady()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_, err := n.Propose(ctx, []byte("no entry at all"))
	require.ErrorIs(t, err, cluster.ErrFSMFailed)
	require.ErrorIs(t, n.Ready(), cluster.ErrFSMFailed)
	require.Eventually(t, func() bool { _, ok := n.Leader(); return !ok }, 60*time.Second, 5*time.Millisecond)
	_, err = n.write(ctx, 1)
	require.True(t, errors.Is(err, cluster.ErrFSMFailed) && errors.Is(err, cluster.ErrNoLeader), "%v", err)
}

func TestSettingsAndRetention(t *testing.T) {
	n := startNode(t, cluster.Config{Settings: func() fsm.Settings {
		return fsm.Settings{OutOfOrderWindow: time.Hour, MaxExemplars: 7}
	}})
	n.waitReady()
	require.Eventually(t, func() bool { return n.fsm.Settings().MaxExemplars == 7 }, 60*time.Second, 5*time.Millisecond)
	require.Equal(t, n.ClusterID(), n.fsm.Settings().ClusterID)
	n.mustWrite(1)
	n.stop()
	n.cfg.Retention = func() (time.Duration, int64) { return time.Minute, 0 }
	n.cfg.Settings = func() fsm.Settings { return fsm.Settings{MaxExemplars: 8} }
	id := n.ClusterID()
	n.start()
	n.waitReady()
	require.Eventually(t, func() bool {
		return n.fsm.Settings().MaxExemplars == 8 && n.fsm.Cutoff() == n.fsm.MaxTime()-time.Minute.Milliseconds()
	}, 60*time.Second, 5*time.Millisecond)
	require.Equal(t, id, n.ClusterID())
}
