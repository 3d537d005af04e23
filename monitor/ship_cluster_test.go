// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

// shipNode is a node of a real cluster that ships.
type shipNode struct {
	t    *testing.T
	to   *sink
	conf cluster.Config

	mu      sync.RWMutex // held to read while the node is used, to write while it is stopped and started
	fsm     *fsm.FSM
	node    *cluster.Node
	shipper *Shipper
}

func (n *shipNode) start() {
	n.t.Helper()
	snapshots, err := cluster.OpenSnapshots(n.conf.Dir, n.conf.Logger)
	require.NoError(n.t, err)
	from, _ := snapshots.Latest()
	n.conf.Registerer = prometheus.NewRegistry()
	n.fsm, err = fsm.Open(fsm.Options{Dir: n.conf.Dir, Logger: n.conf.Logger}, from)
	require.NoError(n.t, err)
	n.node, err = cluster.Start(n.conf, n.fsm, snapshots)
	require.NoError(n.t, err)
	n.shipper, err = NewShipper(ShipperOptions{Log: n.node, FSM: n.fsm, Dir: n.conf.Dir, Logger: n.conf.Logger, Registerer: n.conf.Registerer})
	require.NoError(n.t, err)
	require.NoError(n.t, n.shipper.ApplyConfig(n.to.conf(n.t)))
}

// stop ends the node; with grace the shipper first, as a process that is asked to end does.
func (n *shipNode) stop(grace bool) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), shipPatience)
	defer cancel()
	if grace {
		require.NoError(n.t, n.shipper.Stop(ctx))
	}
	require.NoError(n.t, n.node.Shutdown(ctx))
	require.NoError(n.t, n.shipper.Stop(ctx))
	require.NoError(n.t, n.fsm.Close())
}

func (n *shipNode) restart(grace bool) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stop(grace)
	n.start()
}

// write commits one sample and returns what the sink is to get.
func (n *shipNode) write(ctx context.Context, i int) (string, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	ls := labels.FromStrings("__name__", "m", "i", fmt.Sprint(i%99)) // a series has one of three writers, so all comes in order
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out, err := shipBatch(ctx, n.fsm, n.node, func(b *fsm.Batch) {
		b.Series(nil, ls)
		b.Float(int64(1_000_000+i), float64(i))
	})
	if err == nil && len(out.Refused) > 0 {
		n.t.Errorf("sample %d is refused: %v", i, out.Refused)
	}
	return fmt.Sprintf("%s %d %v", ls, 1_000_000+i, float64(i)), err
}

func startShipCluster(t *testing.T, to *sink) []*shipNode {
	t.Helper()
	var nodes []*shipNode
	for i := range 3 {
		n := &shipNode{t: t, to: to, conf: cluster.Config{
			Dir: t.TempDir(), NodeID: fmt.Sprint("n", i), BootstrapExpect: 3, ListenAddress: "127.0.0.1:0", GossipListenAddress: "127.0.0.1:0",
			TrailingLogBytes: 1, SnapshotEntries: 300, // the log is truncated all the time
			Logger: shipLogger(t), OnFatal: func(err error) { t.Errorf("fatal: %v", err) },
		}}
		for _, other := range nodes {
			n.conf.Peers = append(n.conf.Peers, other.node.GossipAddress())
		}
		n.start()
		nodes = append(nodes, n)
	}
	t.Cleanup(func() {
		for _, n := range nodes {
			n.stop(false)
		}
	})
	for _, n := range nodes { // later starts find each other by the addresses of this one
		n.conf.GossipListenAddress = n.node.GossipAddress()
		n.conf.Peers = nil
		for _, other := range nodes {
			n.conf.Peers = append(n.conf.Peers, other.node.GossipAddress())
		}
	}
	awaitShipping(t, nodes)
	return nodes
}

// awaitShipping waits until all nodes are ready and one of them knows where to begin.
func awaitShipping(t *testing.T, nodes []*shipNode) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, n := range nodes {
			if n.node.Ready() != nil || len(n.fsm.Shipped()) != 1 {
				return false
			}
		}
		return true
	}, shipPatience, 10*time.Millisecond)
}

func leaderIndex(t *testing.T, nodes []*shipNode) (leader int) {
	t.Helper()
	require.Eventually(t, func() bool {
		for i, n := range nodes {
			if id, ok := n.node.Leader(); ok && id == n.node.ID() {
				leader = i
				return true
			}
		}
		return false
	}, shipPatience, 10*time.Millisecond)
	return leader
}

// shipWriters write samples through all nodes, each until it is acknowledged.
type shipWriters struct {
	nodes []*shipNode
	wg    sync.WaitGroup

	mu     sync.Mutex // protects the following
	acked  []string
	failed int // attempts; what they have written may be in the log twice
}

const shipWriterCount = 3

func (w *shipWriters) start(ctx context.Context) {
	for first := range shipWriterCount {
		w.wg.Go(func() {
			for i := first; ctx.Err() == nil; i += shipWriterCount {
				for ctx.Err() == nil && !w.write(ctx, i) {
				}
				rest(ctx, time.Millisecond)
			}
		})
	}
}

func (w *shipWriters) write(ctx context.Context, i int) bool {
	want, err := w.nodes[i/3%3].write(ctx, i)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed++
		return false
	}
	w.acked = append(w.acked, want)
	return true
}

func (w *shipWriters) written() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// committed is an index that covers all that any node has applied.
func committed(t *testing.T, nodes []*shipNode) (index uint64) {
	t.Helper()
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var err error
		index, err = nodes[leaderIndex(t, nodes)].node.ReadIndex(ctx)
		return err == nil
	}, shipPatience, 10*time.Millisecond)
	return index
}

// awaitNoTerm waits until nothing is sent by the terms of n that are over.
func (n *shipNode) awaitNoTerm() {
	n.shipper.mu.Lock()
	idle := n.shipper.idle
	n.shipper.mu.Unlock()
	select {
	case <-idle:
		n.shipper.ending.Wait()
	case <-time.After(shipPatience):
		n.t.Error("the term does not end")
	}
}

// Leaders are replaced and stopped, without a word of where they were, while others write. What is sent twice was written
// after the last position that was noted, and before the old leader had ended.
func TestShipThroughFailovers(t *testing.T) {
	const rounds = 6
	to := newSink(t)
	nodes := startShipCluster(t, to)
	ctx, cancel := context.WithCancel(t.Context())
	w := &shipWriters{nodes: nodes}
	w.start(ctx)
	_, term := nodes[leaderIndex(t, nodes)].fsm.Applied()
	calm := true         // no elections but those of the test
	unnoted := uint64(0) // entries that a failover may repeat
	for round := range rounds {
		before := w.written()
		require.Eventually(t, func() bool { return w.written() > before+200 }, shipPatience, 10*time.Millisecond)
		l := nodes[leaderIndex(t, nodes)]
		at, _ := l.fsm.ShippedFrom()
		require.Eventually(t, func() bool { // under constant load
			now, _ := l.fsm.ShippedFrom()
			return now > at+100
		}, shipPatience, 10*time.Millisecond)
		noted, _ := l.fsm.ShippedFrom()
		if round%2 == 1 {
			l.restart(false)
		} else if l.node.TransferLeadership(t.Context(), "") == nil {
			l.awaitNoTerm()
		} else {
			calm = false
		}
		unnoted += committed(t, nodes) - noted
	}
	cancel()
	w.wg.Wait()
	to.await(t, w.acked...)
	skipped := 0.0
	for _, n := range nodes {
		skipped += gathered(t, n.conf.Registerer.(*prometheus.Registry), "deucalion_remote_storage_skipped_entries_total")
	}
	require.Zero(t, skipped)
	_, last := nodes[leaderIndex(t, nodes)].fsm.Applied()
	// A write that was under way when the leader changed is in the log twice, perhaps.
	limit := int(unnoted) + w.failed + shipWriterCount*rounds
	t.Logf("%d samples acknowledged, all arrived, %d repeated, of at most %d, in %d terms", len(w.acked), to.repeats(), limit, last-term+1)
	if calm && last-term == rounds {
		require.LessOrEqual(t, to.repeats(), limit, "only what was not noted is sent again")
	}
	require.Less(t, to.repeats(), len(w.acked), "each failover repeats a stretch, not everything")
}

// shippedBy counts the nodes that have shipped since they were started.
func shippedBy(t *testing.T, nodes []*shipNode) (count int) {
	t.Helper()
	for _, n := range nodes {
		families, err := n.conf.Registerer.(*prometheus.Registry).Gather()
		require.NoError(t, err)
		if slices.ContainsFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "deucalion_remote_storage_rewinds_total" }) {
			count++
		}
	}
	return count
}

// All nodes stop with grace and come back: nothing is missing and, unless there were more leaders, nothing is sent again.
func TestShipThroughRestartOfAll(t *testing.T) {
	to := newSink(t)
	nodes := startShipCluster(t, to)
	w := &shipWriters{nodes: nodes}
	put := func(from, n int) {
		t.Helper()
		for i := range n {
			require.Eventually(t, func() bool { return w.write(t.Context(), from+i) }, shipPatience, 10*time.Millisecond)
		}
	}
	put(0, 300)
	to.await(t, w.acked...)
	var wg sync.WaitGroup
	for _, n := range nodes {
		require.NoError(t, n.shipper.Stop(t.Context()))
	}
	leaders := shippedBy(t, nodes)
	put(1000, 100) // nobody ships now
	for _, n := range nodes {
		wg.Go(func() { n.restart(true) })
	}
	wg.Wait()
	awaitShipping(t, nodes)
	put(2000, 10)
	to.await(t, w.acked...)
	if leaders == 1 && shippedBy(t, nodes) == 1 {
		require.LessOrEqual(t, to.repeats(), w.failed, "sent again")
	}
}
