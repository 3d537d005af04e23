// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

const (
	partMillis = int64(2 * time.Hour / time.Millisecond)
	seriesEach = 10
	pointsEach = 600 // per series in a part: about 60 kB
)

// fill writes part after part of two hours of data, which become blocks.
func (n *testNode) fill(from, to int) {
	n.t.Helper()
	for part := from; part < to; part++ {
		rng := rand.New(rand.NewPCG(uint64(part), 0))
		for lo := int64(0); lo < pointsEach; lo += 100 {
			b := n.fsm.NewBatch()
			for s := range seriesEach {
				b.Series(nil, labels.FromStrings("__name__", "fill", "s", fmt.Sprint(s)))
				for i := lo; i < lo+100; i++ {
					b.Float((int64(part)+1)*partMillis+i*partMillis/pointsEach, rng.Float64())
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			_, err := b.Commit(ctx, n)
			cancel()
			b.Release()
			require.NoError(n.t, err)
		}
	}
}

// age makes the log longer than what a snapshot leaves of it.
func (n *testNode) age() {
	n.t.Helper()
	var g errgroup.Group
	for range 16 {
		g.Go(func() error {
			for range 20 {
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				_, err := n.Propose(ctx, fsm.EncodeNoop())
				cancel()
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(n.t, g.Wait())
}

// content is a hash of all samples that this node holds.
func (n *testNode) content() string {
	n.t.Helper()
	q, err := n.fsm.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(n.t, err)
	defer q.Close()
	ss := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "fill"))
	h := fnv.New64a()
	samples := 0
	var it chunkenc.Iterator
	for ss.Next() {
		fmt.Fprintln(h, ss.At().Labels())
		it = ss.At().Iterator(it)
		for it.Next() != chunkenc.ValNone {
			ts, v := it.At()
			fmt.Fprintln(h, ts, math.Float64bits(v))
			samples++
		}
		require.NoError(n.t, it.Err())
	}
	require.NoError(n.t, ss.Err())
	return fmt.Sprintf("%d samples, %x", samples, h.Sum64())
}

// lagging is a cluster of three of which one misses the end of the log, which the others no longer have.
type lagging struct {
	nodes          []*testNode
	leader, other  *testNode
	behind         *testNode
	total, missing int // parts written, and missed
}

// newEven is one in which all nodes still have the same, and a snapshot of it.
func newEven(t *testing.T, change func(*cluster.Config)) *lagging {
	t.Helper()
	l := &lagging{total: 12, missing: 2}
	for i := range 3 {
		p := newProxy(t)
		cfg := cluster.Config{
			NodeID: fmt.Sprintf("n%d", i), BootstrapExpect: 3, TrailingLogBytes: 1, LogSegmentBytes: 64 << 10,
			AdvertiseAddress: p.ln.Addr().String(),
		}
		for _, n := range l.nodes {
			cfg.Peers = append(cfg.Peers, n.GossipAddress())
		}
		if change != nil {
			change(&cfg)
		}
		l.nodes = append(l.nodes, startNodeWith(t, cfg, 0, storage.Options{MaxBlockSpan: 2 * time.Hour}, p))
	}
	// It, too, finds the others when it comes back with nothing.
	l.nodes[0].cfg.Peers = []string{l.nodes[1].GossipAddress(), l.nodes[2].GossipAddress()}
	for _, n := range l.nodes {
		n.waitReady()
	}
	var rest []*testNode
	l.leader, rest = leaderOf(t, l.nodes)
	l.behind, l.other = rest[0], rest[1]
	l.leader.fill(0, l.total-l.missing)
	l.even(l.total - l.missing)
	for _, n := range l.nodes {
		require.NoError(t, n.Snapshot(t.Context()))
	}
	return l
}

// even waits until all nodes have all that was written.
func (l *lagging) even(parts int) {
	want := fmt.Sprintf("%d samples, ", parts*seriesEach*pointsEach)
	for _, n := range l.nodes {
		n.eventually(want, func() bool { return strings.HasPrefix(n.content(), want) })
	}
}

// newLagging is a cluster in which one node, that is down, is too far behind for the log.
func newLagging(t *testing.T, change func(*cluster.Config)) *lagging {
	t.Helper()
	l := newEven(t, change)
	l.behind.crash()
	l.goOn(t)
	return l
}

// goOn makes two snapshots: then nobody has the log any more back to where the node that is behind is.
func (l *lagging) goOn(t *testing.T) {
	t.Helper()
	for i := l.total - l.missing; i < l.total; i++ {
		l.leader.fill(i, i+1)
		require.NoError(t, l.leader.Snapshot(t.Context()))
		l.leader.age()
		require.NoError(t, l.other.Snapshot(t.Context()))
	}
	// A busy machine may have had another election.
	led := l.leader
	l.leader, _ = leaderOf(t, []*testNode{l.leader, l.other})
	if l.leader != led { // the newer snapshot is that of the one that does not lead
		l.other = led
		l.leader.age()
		require.NoError(t, l.other.Snapshot(t.Context()))
	}
}

// newest is the newest snapshot on this node's disk.
func (n *testNode) newest() (dir string, newest fsm.Manifest) {
	n.t.Helper()
	for _, d := range n.snapshotDirs() {
		m, err := fsm.ReadManifest(d)
		require.NoError(n.t, err)
		if m.Index >= newest.Index {
			dir, newest = d, m
		}
	}
	return dir, newest
}

// offered is the size of what this node would offer as the leader.
func (n *testNode) offered() int64 {
	n.t.Helper()
	_, m := n.newest()
	return m.Bytes()
}

func (n *testNode) eventually(what string, f func() bool) {
	n.t.Helper()
	require.Eventually(n.t, f, time.Minute, 10*time.Millisecond, "%s: %s", n.ID(), what)
}

// caughtUp waits until the node that was behind has everything, by a snapshot, and holds it against the leader.
func (l *lagging) caughtUp(t *testing.T) {
	t.Helper()
	n := l.behind
	n.eventually("ready", func() bool { return n.Ready() == nil })
	leader, _ := leaderOf(t, l.nodes)
	n.eventually("the same content", func() bool { return n.content() == leader.content() })
	require.Positive(t, n.metric("deucalion_raft_snapshot_installs_total"), "it came by snapshot")
	n.eventually("staging is removed", func() bool {
		_, err := os.Stat(n.incoming())
		return os.IsNotExist(err)
	})
	require.Zero(t, n.metric("deucalion_raft_catchup_active"))
	dir, m := n.newest()
	require.NoError(t, fsm.VerifySnapshot(dir, true))
	require.NotZero(t, m.Index)
}

func (n *testNode) incoming() string { return filepath.Join(n.cfg.Dir, "snapshots-raft", "incoming") }

func (n *testNode) snapshotDirs() []string {
	dirs, err := filepath.Glob(filepath.Join(n.cfg.Dir, "snapshots-raft", "*-*-*", "data"))
	require.NoError(n.t, err)
	return dirs
}

func (n *testNode) fetched() int64 {
	return int64(n.metric("deucalion_raft_catchup_fetched_bytes_total"))
}

func (n *testNode) kept() int64 { return int64(n.metric("deucalion_raft_catchup_kept_bytes_total")) }

// wipe forgets everything but who the node is.
func (n *testNode) wipe() {
	n.t.Helper()
	require.True(n.t, n.down)
	require.NoError(n.t, os.RemoveAll(n.cfg.Dir))
}
