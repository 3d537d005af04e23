// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

// testNode is one node with real disks and sockets.
type testNode struct {
	*cluster.Node
	t    *testing.T
	cfg  cluster.Config
	fsm  *fsm.FSM
	down bool
}

func testLogger(t *testing.T, id string) *slog.Logger {
	level := slog.LevelError + 4
	if os.Getenv("CLUSTER_TEST_LOG") != "" {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("test", t.Name(), "node", id)
}

// startNode starts a node on free ports of the loopback.
func startNode(t *testing.T, cfg cluster.Config) *testNode {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.ListenAddress == "" {
		cfg.ListenAddress = "127.0.0.1:0"
	}
	if cfg.GossipListenAddress == "" {
		cfg.GossipListenAddress = "127.0.0.1:0"
	}
	cfg.Logger = testLogger(t, cfg.NodeID)
	cfg.Registerer = prometheus.NewRegistry()
	if cfg.OnFatal == nil {
		cfg.OnFatal = func(err error) { t.Errorf("fatal: %v", err) }
	}
	n := &testNode{t: t, cfg: cfg}
	n.start()
	t.Cleanup(n.stop)
	return n
}

func (n *testNode) start() {
	n.t.Helper()
	s, err := cluster.OpenSnapshots(n.cfg.Dir, n.cfg.Logger)
	require.NoError(n.t, err)
	from, _ := s.Latest()
	n.cfg.Registerer = prometheus.NewRegistry()
	n.fsm, err = fsm.Open(fsm.Options{Dir: n.cfg.Dir, Logger: n.cfg.Logger}, from)
	require.NoError(n.t, err)
	n.Node, err = cluster.Start(n.cfg, n.fsm, s)
	require.NoError(n.t, err)
	n.down = false
}

func (n *testNode) stop() {
	if n.down {
		return
	}
	n.down = true
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := n.Shutdown(ctx); err != nil {
		n.t.Errorf("shutdown of %s: %v", n.ID(), err)
	}
	if err := n.fsm.Close(); err != nil {
		n.t.Errorf("close of %s: %v", n.ID(), err)
	}
}

func (n *testNode) crash() {
	n.down = true
	n.Crash()
	require.NoError(n.t, n.fsm.Close())
}

// write commits one sample through n.
func (n *testNode) write(ctx context.Context, i int) (uint64, error) {
	b := n.fsm.NewBatch()
	defer b.Release()
	b.Series(nil, labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)))
	b.Float(1_000_000+int64(i), float64(i))
	out, err := b.Commit(ctx, n)
	return out.Index, err
}

func (n *testNode) mustWrite(i int) uint64 {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	index, err := n.write(ctx, i)
	require.NoError(n.t, err)
	return index
}

// writeMany commits samples [from, to) through n from several goroutines.
func (n *testNode) writeMany(from, to int) {
	n.t.Helper()
	var wg sync.WaitGroup
	errs := make(chan error, to-from)
	work := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range work {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				_, err := n.write(ctx, i)
				cancel()
				errs <- err
			}
		})
	}
	for i := from; i < to; i++ {
		work <- i
	}
	close(work)
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(n.t, err)
	}
}

// count returns how many series this node holds, without asking anybody.
func (n *testNode) count() int {
	q, err := n.fsm.Querier(0, 1<<40)
	require.NoError(n.t, err)
	defer q.Close()
	ss := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
	c := 0
	for ss.Next() {
		c++
	}
	require.NoError(n.t, ss.Err())
	return c
}

func (n *testNode) waitReady() {
	n.t.Helper()
	require.Eventually(n.t, func() bool { return n.Ready() == nil }, 15*time.Second, 5*time.Millisecond, "node %s", n.ID())
}

func (n *testNode) waitCount(want int) {
	n.t.Helper()
	require.Eventually(n.t, func() bool { return n.count() == want }, 15*time.Second, 10*time.Millisecond, "node %s", n.ID())
}

// startCluster forms a cluster of three through gossip.
func startCluster(t *testing.T, change func(*cluster.Config)) []*testNode {
	t.Helper()
	var nodes []*testNode
	for i := range 3 {
		cfg := cluster.Config{NodeID: fmt.Sprintf("n%d", i), BootstrapExpect: 3, Version: "v1", HTTPAddress: fmt.Sprintf("h%d:1", i)}
		for _, n := range nodes {
			cfg.Peers = append(cfg.Peers, n.GossipAddress())
		}
		if change != nil {
			change(&cfg)
		}
		nodes = append(nodes, startNode(t, cfg))
	}
	for _, n := range nodes {
		n.waitReady()
	}
	return nodes
}

// leaderOf returns the leader and the others.
func leaderOf(t *testing.T, nodes []*testNode) (*testNode, []*testNode) {
	t.Helper()
	var leader *testNode
	var rest []*testNode
	require.Eventually(t, func() bool {
		leader, rest = nil, nil
		for _, n := range nodes {
			if n.down {
				continue
			}
			if id, ok := n.Leader(); ok && id == n.ID() && n.Staleness() < 3*time.Second {
				leader = n
			} else {
				rest = append(rest, n)
			}
		}
		return leader != nil
	}, 10*time.Second, 10*time.Millisecond)
	return leader, rest
}

func TestSingleNodeIsReadyAtOnce(t *testing.T) {
	start := time.Now()
	n := startNode(t, cluster.Config{})
	n.waitReady()
	require.Less(t, time.Since(start), time.Second)
	n.writeMany(0, 50)
	require.NotEmpty(t, n.ClusterID())
	id := n.ID()
	n.stop()

	start = time.Now()
	n.start()
	n.waitReady()
	require.Less(t, time.Since(start), time.Second)
	require.Equal(t, id, n.ID(), "the id is kept")
	require.Equal(t, 50, n.count())

	n.writeMany(50, 60)
	n.crash()
	n.start()
	n.waitReady()
	require.Equal(t, 60, n.count(), "the log is replayed before the node is ready")
}

func TestThreeNodes(t *testing.T) {
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
		require.NoError(t, n.AwaitAll(ctx, index, ""))
		require.Equal(t, nodes[0].ClusterID(), n.ClusterID())
		require.Less(t, n.Staleness(), 5*time.Second)

		all := n.Nodes(ctx)
		require.Len(t, all, 3)
		leaders := 0
		for _, s := range all {
			require.True(t, s.Alive && s.Voter, "%+v", s)
			require.NotZero(t, s.AppliedIndex)
			require.Equal(t, "v1", s.Version)
			if s.Role == cluster.RoleLeader {
				leaders++
			}
		}
		require.Equal(t, 1, leaders)
		cancel()
	}
	nodes[0].StopServing()
	require.ErrorIs(t, nodes[0].Ready(), cluster.ErrStopped)
}

// Reads on every node see what was acknowledged before on any.
func TestReadIndexSeesEarlierWrites(t *testing.T) {
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
	nodes := startCluster(t, nil)
	leader, rest := leaderOf(t, nodes)
	leader.writeMany(0, 20)
	leader.crash()
	start := time.Now()
	rest[0].mustWrite(20)
	require.Less(t, time.Since(start), 3*time.Second)
	rest[1].mustWrite(21)

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
	_, err := a.write(ctx, 23)
	require.ErrorIs(t, err, cluster.ErrNoLeader)
	_, err = a.ReadIndex(ctx)
	require.ErrorIs(t, err, cluster.ErrNoLeader)
	require.Eventually(t, func() bool { return a.Staleness() > time.Second }, 5*time.Second, 10*time.Millisecond)
}

// A graceful stop of the leader costs the others' clients nothing but a retry.
func TestLeaderStopsGracefully(t *testing.T) {
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

// All nodes come back at once with new addresses; each knows only one stale peer address and one good one.
func TestAllNodesWithNewAddresses(t *testing.T) {
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

func TestTransferLeadership(t *testing.T) {
	nodes := startCluster(t, nil)
	leader, rest := leaderOf(t, nodes)
	require.Error(t, rest[0].TransferLeadership(t.Context()))
	require.NoError(t, leader.TransferLeadership(t.Context()))
	id, _ := leader.Leader()
	require.NotEqual(t, leader.ID(), id)
	for i, n := range nodes {
		n.mustWrite(i)
	}
	leader.waitReady()
}

// A wiped follower gets a snapshot, and the leader's log no longer begins at 1.
func TestInstallSnapshot(t *testing.T) {
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
	}, 15*time.Second, 50*time.Millisecond)
	second.mustWrite(20)

	stranger := startNode(t, cluster.Config{NodeID: "c"})
	stranger.waitReady()
	stranger.stop()
	stranger.cfg.Peers = []string{first.GossipAddress()}
	stranger.start()
	stranger.waitReady()
	require.NotEqual(t, first.ClusterID(), stranger.ClusterID())
	time.Sleep(1500 * time.Millisecond) // longer than the leader's reconciliation: it must not happen
	require.Len(t, first.Nodes(t.Context()), 2)
	require.Len(t, stranger.Nodes(t.Context()), 1)
}

func TestRefusals(t *testing.T) {
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
	require.Eventually(t, func() bool { _, ok := n.Leader(); return !ok }, 5*time.Second, 5*time.Millisecond)
	_, err = n.write(ctx, 1)
	require.True(t, errors.Is(err, cluster.ErrFSMFailed) && errors.Is(err, cluster.ErrNoLeader), "%v", err)
}

func TestSettingsAndRetention(t *testing.T) {
	n := startNode(t, cluster.Config{Settings: func() fsm.Settings {
		return fsm.Settings{OutOfOrderWindow: time.Hour, MaxExemplars: 7}
	}})
	n.waitReady()
	require.Eventually(t, func() bool { return n.fsm.Settings().MaxExemplars == 7 }, 5*time.Second, 5*time.Millisecond)
	require.Equal(t, n.ClusterID(), n.fsm.Settings().ClusterID)
	n.mustWrite(1)
	n.stop()
	n.cfg.RetentionTime = time.Minute
	n.cfg.Settings = func() fsm.Settings { return fsm.Settings{MaxExemplars: 8} }
	id := n.ClusterID()
	n.start()
	n.waitReady()
	require.Eventually(t, func() bool {
		return n.fsm.Settings().MaxExemplars == 8 && n.fsm.Cutoff() == n.fsm.MaxTime()-time.Minute.Milliseconds()
	}, 5*time.Second, 5*time.Millisecond)
	require.Equal(t, id, n.ClusterID())
}
