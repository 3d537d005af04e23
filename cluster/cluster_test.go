// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

// testNode is one node with real disks and sockets.
type testNode struct {
	*cluster.Node
	t     *testing.T
	cfg   cluster.Config
	level uint32 // see fsm.Options.Level
	fsm   *fsm.FSM
	down  bool

	storage storage.Options
	proxy   *proxy // what the others reach this node through, or nil
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
	return startNodeWith(t, cfg, 0, storage.Options{}, nil)
}

// startNodeAt is startNode of a version that knows no more than level.
func startNodeAt(t *testing.T, cfg cluster.Config, level uint32) *testNode {
	t.Helper()
	return startNodeWith(t, cfg, level, storage.Options{}, nil)
}

func startNodeWith(t *testing.T, cfg cluster.Config, level uint32, so storage.Options, p *proxy) *testNode {
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
	n := &testNode{t: t, cfg: cfg, level: level, storage: so, proxy: p}
	n.start()
	t.Cleanup(n.stop)
	return n
}

func (n *testNode) start() {
	n.t.Helper()
	s, err := cluster.OpenSnapshots(n.cfg.Dir, n.cfg.Logger)
	require.NoError(n.t, err)
	n.cfg.Registerer = prometheus.NewRegistry()
	n.fsm, err = fsm.Open(fsm.Options{Dir: n.cfg.Dir, Logger: n.cfg.Logger, Storage: n.storage, Level: n.level}, "")
	require.NoError(n.t, err)
	require.NoError(n.t, s.Restore(n.fsm))
	n.Node, err = cluster.Start(n.cfg, n.fsm, s)
	require.NoError(n.t, err)
	n.down = false
	if n.proxy != nil {
		n.proxy.to(n.ListenAddress())
	}
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

// metric returns the value of a counter or gauge, summed over its labels.
func (n *testNode) metric(name string) (sum float64) {
	mfs, err := n.cfg.Registerer.(*prometheus.Registry).Gather()
	require.NoError(n.t, err)
	for _, mf := range mfs {
		if mf.GetName() == name {
			for _, m := range mf.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
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
	require.Eventually(n.t, func() bool { return n.Ready() == nil }, 60*time.Second, 5*time.Millisecond, "node %s", n.ID())
}

func (n *testNode) waitCount(want int) {
	n.t.Helper()
	require.Eventually(n.t, func() bool { return n.count() == want }, 60*time.Second, 10*time.Millisecond, "node %s", n.ID())
}

// startCluster forms a cluster of three through gossip.
func startCluster(t *testing.T, change func(*cluster.Config)) []*testNode {
	t.Helper()
	return formCluster(t, change, func(int) uint32 { return 0 })
}

// startClusterAt has nodes of different versions.
func startClusterAt(t *testing.T, level func(i int) uint32) []*testNode {
	t.Helper()
	return formCluster(t, nil, level)
}

func formCluster(t *testing.T, change func(*cluster.Config), level func(i int) uint32) []*testNode {
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
		nodes = append(nodes, startNodeAt(t, cfg, level(i)))
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
	}, 60*time.Second, 10*time.Millisecond)
	return leader, rest
}
