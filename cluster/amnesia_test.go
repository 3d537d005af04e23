// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

const shortWait = time.Second // for Config.RecoveryWait

func shortRecovery(c *cluster.Config) { c.RecoveryWait = shortWait }

// back starts a node that is down where it finds those that run.
func (n *testNode) back(nodes []*testNode) {
	n.t.Helper()
	n.cfg.Peers = nil
	for _, m := range nodes {
		if m != n && !m.down {
			n.cfg.Peers = append(n.cfg.Peers, m.GossipAddress())
		}
	}
	n.start()
}

// waitRecovered waits until n has its vote.
func (n *testNode) waitRecovered() {
	n.t.Helper()
	require.Eventually(n.t, func() bool { return n.metric("deucalion_cluster_recovering") == 0 }, 30*time.Second, 20*time.Millisecond, "node %s", n.ID())
}

func (n *testNode) recovering() string {
	for _, s := range n.Nodes(n.t.Context()) {
		if s.ID == n.ID() {
			return s.Recovering
		}
	}
	return ""
}

// flip changes one bit of a file below the node's directory, where place (0 to 1) of what is not zero in it says.
func (n *testNode) flip(pattern string, place float64) {
	n.t.Helper()
	names, err := filepath.Glob(filepath.Join(n.cfg.Dir, pattern))
	require.NoError(n.t, err)
	require.NotEmpty(n.t, names)
	b, err := os.ReadFile(names[0])
	require.NoError(n.t, err)
	var places []int
	for i, c := range b {
		if c != 0 {
			places = append(places, i)
		}
	}
	b[places[2+int(place*float64(len(places)-3))]] ^= 1 // the first bytes of a bbolt file are of no use to anybody
	require.NoError(n.t, os.WriteFile(names[0], b, 0o644))
}

// A and B hold an acknowledged entry, C does not. B is wiped while A is down: B and C must not make do without A, for
// they would lose it.
func TestAmnesiaWipedVoterDoesNotElect(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, shortRecovery)
	a, rest := leaderOf(t, nodes)
	b, c := rest[0], rest[1]
	a.writeMany(0, 20)
	c.waitCount(20)
	c.crash()
	a.writeMany(20, 40)
	b.waitCount(40)
	a.crash()
	b.crash()
	b.wipe()
	c.back(nodes)
	b.back(nodes)
	require.Never(t, func() bool {
		_, ok := c.Leader()
		return ok || b.Ready() == nil
	}, 5*time.Second, 20*time.Millisecond, "a leader that lacks what was acknowledged")
	require.NotEmpty(t, b.recovering())
	require.Equal(t, 1.0, b.metric("deucalion_cluster_recovering"))

	a.back(nodes)
	for _, n := range nodes {
		n.waitReady()
		n.waitCount(40)
	}
	b.waitRecovered()
	require.Empty(t, b.recovering())
	// Now B's vote counts again.
	a.crash()
	b.mustWrite(40)
	a.back(nodes)
	a.waitReady()
}

// While the two others lead and vote, a wiped voter comes back without anybody noticing, and is not forgotten to be
// amnesiac when it dies on the way.
func TestAmnesiaIsNotForgotten(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, func(c *cluster.Config) { c.RecoveryWait = time.Hour })
	leader, rest := leaderOf(t, nodes)
	leader.writeMany(0, 20)
	rest[0].crash()
	rest[0].wipe()
	rest[0].back(nodes)
	rest[0].waitReady()
	rest[0].waitCount(20)
	require.Equal(t, "the data directory was empty", rest[0].recovering())
	rest[0].crash()
	rest[0].cfg.RecoveryWait = shortWait
	rest[0].back(nodes)
	require.NotEmpty(t, rest[0].recovering())
	rest[0].waitReady()
	rest[0].waitRecovered()
	rest[0].crash()
	rest[0].back(nodes)
	require.Empty(t, rest[0].recovering())
	rest[0].waitReady()
}

// Two of three have lost everything: nobody can know whether the third has all that was acknowledged. An operator who
// accepts the loss says so by removing a file.
func TestAmnesiaOfAMajority(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, shortRecovery)
	nodes[0].writeMany(0, 20)
	nodes[2].waitCount(20)
	for _, n := range nodes {
		n.crash()
	}
	for _, n := range nodes[:2] {
		n.wipe()
	}
	for i := range nodes {
		nodes[2-i].back(nodes)
	}
	require.Never(t, func() bool { _, ok := nodes[2].Leader(); return ok }, 4*time.Second, 20*time.Millisecond)
	nodes[0].crash()
	require.NoError(t, os.Remove(filepath.Join(nodes[0].cfg.Dir, "raft", "amnesiac")))
	nodes[0].back(nodes)
	for _, n := range nodes {
		n.waitReady()
		n.waitCount(20)
		n.waitRecovered()
	}
}

// In a cluster of two, the other voter holds all that was committed, so it may lead; the wiped one may not.
func TestAmnesiaInAClusterOfTwo(t *testing.T) {
	t.Parallel()
	a := startNode(t, cluster.Config{NodeID: "a", RecoveryWait: shortWait})
	a.waitReady()
	a.writeMany(0, 20)
	b := startNode(t, cluster.Config{NodeID: "b", Peers: []string{a.GossipAddress()}, RecoveryWait: shortWait})
	nodes := []*testNode{a, b}
	require.Eventually(t, func() bool {
		for _, s := range a.Nodes(t.Context()) {
			if s.ID == "b" {
				return s.Voter
			}
		}
		return false
	}, 60*time.Second, 20*time.Millisecond)
	b.mustWrite(20)
	a.crash()
	b.crash()
	b.wipe()
	a.back(nodes)
	b.back(nodes)
	b.waitReady()
	b.waitCount(21)
	b.waitRecovered()
	b.mustWrite(21)
}

// A cluster is being formed while its nodes are killed, again and again; whatever they had promised, it forms.
func TestAmnesiaFormingUnderKills(t *testing.T) {
	t.Parallel()
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		var nodes []*testNode
		for i := range 3 {
			cfg := cluster.Config{NodeID: fmt.Sprintf("n%d", i), BootstrapExpect: 3, RecoveryWait: shortWait}
			for _, n := range nodes {
				cfg.Peers = append(cfg.Peers, n.GossipAddress())
			}
			nodes = append(nodes, startNode(t, cfg))
		}
		for range 3 {
			time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond) // any moment is as good
			for _, i := range rand.Perm(3)[:1+rand.IntN(3)] {
				nodes[i].crash()
			}
			for _, n := range nodes {
				if n.down {
					n.back(nodes)
				}
			}
		}
		for i, n := range nodes {
			n.waitReady()
			n.mustWrite(i)
			n.waitRecovered()
		}
		for _, n := range nodes {
			n.stop()
		}
		t.Logf("round %d", round)
	}
}

// Whoever forms the cluster died after all had promised: they form it with its successor, or wait for it.
func TestAmnesiaPromiseOutlivesItsTaker(t *testing.T) {
	t.Parallel()
	group := []string{"n0", "n1", "n2"}
	var nodes []*testNode
	for _, id := range group[1:] {
		cfg := cluster.Config{NodeID: id, BootstrapExpect: 3, RecoveryWait: shortWait}
		for _, n := range nodes {
			cfg.Peers = append(cfg.Peers, n.GossipAddress())
		}
		n := startNode(t, cfg)
		nodes = append(nodes, n)
		require.NotEmpty(t, n.recovering())
		require.NoError(t, n.Promise("n0", group, false))
		require.NotEmpty(t, n.recovering(), "the others may refuse yet")
		require.NoError(t, n.Promise("n0", group, true))
		require.Empty(t, n.recovering())
		n.crash()
	}
	for _, n := range nodes {
		n.back(nodes)
		require.Empty(t, n.recovering(), "the promise is kept")
	}
	nodes = append(nodes, startNode(t, cluster.Config{
		NodeID: "n0", BootstrapExpect: 3, RecoveryWait: shortWait,
		Peers: []string{nodes[0].GossipAddress(), nodes[1].GossipAddress()},
	}))
	for i, n := range nodes {
		n.waitReady()
		n.mustWrite(i)
		n.waitRecovered()
	}
}

// What is damaged on one of three nodes comes back from the others.
func TestHealFromOthers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind, file string
		place      float64
		aside      string
	}{
		{cluster.LogStoreWAL, "raft/wal/0*.wal", 0.3, "raft/wal.damaged-*"},
		{cluster.LogStoreWAL, "raft/wal/wal-meta.db", 0, "raft/wal.damaged-*"},
		{cluster.LogStoreWAL, "raft/stable.db", 0, "raft/stable.db.damaged-*"},
		{cluster.LogStoreBoltDB, "raft/log.db", 0, "raft/log.db.damaged-*"},
	} {
		t.Run(c.kind+" "+c.file, func(t *testing.T) {
			nodes := startCluster(t, func(cfg *cluster.Config) { cfg.LogStore, cfg.RecoveryWait = c.kind, shortWait })
			_, rest := leaderOf(t, nodes)
			n := rest[0]
			n.writeMany(0, 60)
			want := 60
			if c.place > 0 { // a snapshot to start from
				require.NoError(t, n.Snapshot(t.Context()))
				n.writeMany(60, 120)
				want = 120
			}
			n.waitCount(want)
			n.crash()
			n.flip(c.file, c.place)
			if c.place > 0 {
				for _, place := range []float64{0.9, 0.92, 0.94, 0.96} { // one may hit what nobody reads
					n.flip(c.file, place)
				}
			}
			n.back(nodes)
			n.waitReady()
			n.waitCount(want)
			require.Equal(t, 1.0, n.metric("deucalion_cluster_heals_total"))
			aside, err := filepath.Glob(filepath.Join(n.cfg.Dir, c.aside))
			require.NoError(t, err)
			require.Len(t, aside, 1)
			n.waitRecovered()
			n.mustWrite(500)
			n.crash()
			n.back(nodes)
			n.waitReady()
			n.waitCount(want + 1)
			require.Zero(t, n.metric("deucalion_cluster_heals_total"))
		})
	}
}

// A cluster of one has nobody to ask: it says what is wrong and leaves everything as it is.
func TestHealNobodyToAsk(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"raft/wal/wal-meta.db", "raft/stable.db", "raft/wal/0*.wal"} {
		t.Run(file, func(t *testing.T) {
			n := startNode(t, cluster.Config{Peers: nil})
			n.waitReady()
			n.writeMany(0, 20)
			n.crash()
			n.flip(file, 0.02)
			s, err := cluster.OpenSnapshots(n.cfg.Dir, n.cfg.Logger)
			require.NoError(t, err)
			f, err := fsm.Open(fsm.Options{Dir: n.cfg.Dir}, "")
			require.NoError(t, err)
			defer f.Close()
			n.cfg.Registerer = prometheus.NewRegistry()
			_, err = cluster.Start(n.cfg, f, s)
			require.ErrorIs(t, err, cluster.ErrDamaged)
			require.ErrorContains(t, err, filepath.Join(n.cfg.Dir, "raft"))
			require.ErrorContains(t, err, "backup")
			aside, err := filepath.Glob(filepath.Join(n.cfg.Dir, "raft", "*.damaged*"))
			require.NoError(t, err)
			require.Empty(t, aside)
		})
	}
}

// The leader hands over to a node that has a vote.
func TestAmnesiaGetsNoLeadership(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, func(c *cluster.Config) { c.RecoveryWait = time.Hour })
	leader, rest := leaderOf(t, nodes)
	leader.writeMany(0, 5)
	rest[0].crash()
	rest[0].wipe()
	rest[0].back(nodes)
	rest[0].waitReady()
	err := rest[1].TransferLeadership(t.Context(), rest[0].ID())
	require.ErrorIs(t, err, cluster.ErrRefused)
	require.ErrorContains(t, err, "has no vote: the data directory was empty")
	for range 2 {
		l, _ := leaderOf(t, nodes)
		l.transfer("")
		id, _ := l.Leader()
		require.NotEqual(t, rest[0].ID(), id)
	}
}
