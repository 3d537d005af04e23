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
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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

// digest is a hash of all samples that this node holds.
func (n *testNode) digest() string {
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

// lagging is a cluster of three of which one has missed the end of the log, which the others no longer have.
type lagging struct {
	nodes          []*testNode
	leader, other  *testNode
	behind         *testNode
	total, missing int // parts written, and missed
}

func newLagging(t *testing.T, change func(*cluster.Config)) *lagging {
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
		l.nodes = append(l.nodes, startNodeWith(t, cfg, storage.Options{MaxBlockSpan: 2 * time.Hour}, p))
	}
	for _, n := range l.nodes {
		n.waitReady()
	}
	var rest []*testNode
	l.leader, rest = leaderOf(t, l.nodes)
	l.behind, l.other = rest[0], rest[1]
	l.leader.fill(0, l.total-l.missing)
	want := l.leader.digest()
	for _, n := range l.nodes {
		require.Eventually(t, func() bool { return n.digest() == want }, 30*time.Second, 20*time.Millisecond)
		require.NoError(t, n.Snapshot(t.Context()))
	}
	l.behind.crash()
	// Two snapshots later nobody has the log back to where the lagging node is.
	for i := l.total - l.missing; i < l.total; i++ {
		l.leader.fill(i, i+1)
		require.NoError(t, l.leader.Snapshot(t.Context()))
		l.leader.age()
		require.NoError(t, l.other.Snapshot(t.Context()))
	}
	return l
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
	n.eventually("the same content", func() bool { return n.digest() == leader.digest() })
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

func TestCatchUpFetchesOnlyWhatIsMissing(t *testing.T) {
	l := newLagging(t, nil)
	n, total := l.behind, l.leader.offered()
	n.start()
	l.caughtUp(t)
	t.Logf("offered %d bytes, fetched %d, kept %d", total, n.fetched(), n.kept())
	require.Less(t, n.fetched(), total/3)
	require.Greater(t, n.kept(), total/2)
	var sent float64
	for _, s := range l.nodes {
		sent += s.metric("deucalion_raft_snapshot_sent_bytes_total")
	}
	require.Equal(t, float64(n.fetched()), sent)

	// And it goes on as one of three: with its own snapshot, after a crash.
	n.fill(l.total, l.total+1)
	require.NoError(t, n.Snapshot(t.Context()))
	n.crash()
	n.start()
	n.waitReady()
	require.Equal(t, l.leader.digest(), n.digest())
	require.Zero(t, n.fetched())
}

func TestCatchUpOfAWipedNode(t *testing.T) {
	l := newLagging(t, nil)
	n, total := l.behind, l.leader.offered()
	n.wipe()
	n.start()
	l.caughtUp(t)
	require.Equal(t, total, n.fetched())
	require.Zero(t, n.kept())
}

// A connection that breaks in the middle of a file goes on where it was.
func TestCatchUpResumes(t *testing.T) {
	l := newLagging(t, nil)
	n, total := l.behind, l.leader.offered()
	n.wipe()
	l.leader.proxy.limit.Store(20_000)
	n.start()
	l.caughtUp(t)
	require.Greater(t, l.leader.proxy.cuts.Load(), int64(5))
	require.GreaterOrEqual(t, n.metric("deucalion_raft_catchup_failures_total"), 5.0)
	require.Equal(t, total, n.fetched(), "no byte is fetched twice")
}

func TestCatchUpResumesAfterACrash(t *testing.T) {
	l := newLagging(t, func(c *cluster.Config) { c.SnapshotMaxRate = 300_000 })
	n, total := l.behind, l.leader.offered()
	n.wipe()
	n.start()
	var st *cluster.CatchUpStatus
	n.eventually("half is there", func() bool {
		st = n.CatchUp()
		return st != nil && st.FetchBytes > 0 && st.FetchedBytes > st.FetchBytes/2
	})
	require.Equal(t, total, st.FetchBytes)
	require.Equal(t, l.leader.ID(), st.Source)
	require.NotEmpty(t, st.Started)
	for _, s := range l.other.Nodes(t.Context()) {
		require.Equal(t, s.ID == n.ID(), s.CatchUp != nil, "every node tells who is catching up: %+v", s)
	}
	require.Error(t, n.Ready())
	n.crash()
	first := n.fetched()
	n.start()
	l.caughtUp(t)
	require.Equal(t, total, first+n.fetched(), "no byte is fetched twice")
}

func flipBit(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	b[len(b)/2] ^= 1
	require.NoError(t, os.WriteFile(name, b, 0o644))
}

// chunkFiles lists the chunk segments of the newest snapshot.
func (n *testNode) chunkFiles() []string {
	n.t.Helper()
	dir, _ := n.newest()
	files, err := filepath.Glob(filepath.Join(dir, "blocks", "*", "chunks", "*"))
	require.NoError(n.t, err)
	require.NotEmpty(n.t, files)
	return files
}

// A block that has rotted on this node's own disk is taken from the other one.
func TestCatchUpReplacesADamagedBlock(t *testing.T) {
	l := newLagging(t, nil)
	n, total := l.behind, l.leader.offered()
	files := n.chunkFiles()
	flipBit(t, files[len(files)/2])
	n.start()
	l.caughtUp(t)
	t.Logf("offered %d bytes, fetched %d, kept %d", total, n.fetched(), n.kept())
	require.Positive(t, n.kept())
	require.Less(t, n.fetched(), total/2)
}

// A file that is changed on its way is fetched again.
func TestCatchUpRepeatsAChangedFile(t *testing.T) {
	l := newLagging(t, nil)
	n, total := l.behind, l.leader.offered()
	n.wipe()
	l.leader.proxy.flip.Store(60_000)
	n.start()
	l.caughtUp(t)
	require.Equal(t, int64(1), l.leader.proxy.flips.Load())
	require.Greater(t, n.fetched(), total)
	require.Equal(t, 1.0, n.metric("deucalion_raft_catchup_failures_total"))
}

// A file that is damaged on the source's disk is never installed.
func TestCatchUpRefusesWhatHasRottedAtTheSource(t *testing.T) {
	l := newLagging(t, nil)
	n := l.behind
	n.wipe()
	files := l.leader.chunkFiles()
	flipBit(t, files[0])
	n.start()
	n.eventually("given up", func() bool { return n.metric("deucalion_raft_catchup_completed_total") >= 1 })
	require.Zero(t, n.metric("deucalion_raft_snapshot_installs_total"))
	before := n.fetched()
	flipBit(t, files[0])
	l.caughtUp(t)
	require.Less(t, n.fetched()-before, l.leader.offered()+1, "what was right is kept")
}

// A fetch goes on when the leader changes, and its result is the base for the new leader's snapshot.
func TestCatchUpSurvivesANewLeader(t *testing.T) {
	l := newLagging(t, func(c *cluster.Config) { c.SnapshotMaxRate = 300_000 })
	n, total := l.behind, l.leader.offered()
	n.wipe()
	n.start()
	n.eventually("a third is there", func() bool {
		st := n.CatchUp()
		return st != nil && st.FetchBytes > 0 && st.FetchedBytes > st.FetchBytes/3
	})
	require.NoError(t, l.leader.TransferLeadership(t.Context()))
	l.caughtUp(t)
	leader, _ := leaderOf(t, l.nodes)
	require.NotEqual(t, l.leader.ID(), leader.ID())
	t.Logf("offered %d bytes, fetched %d", total, n.fetched())
	require.Less(t, n.fetched(), total*3/2)
}

// A source that dies is replaced by the next leader.
func TestCatchUpWithoutItsSource(t *testing.T) {
	l := newLagging(t, func(c *cluster.Config) { c.SnapshotMaxRate = 300_000 })
	n := l.behind
	n.wipe()
	n.start()
	n.SetPatience(time.Second)
	n.eventually("it has begun", func() bool { st := n.CatchUp(); return st != nil && st.FetchedBytes > 0 })
	source := n.CatchUp().Source
	require.Equal(t, l.leader.ID(), source)
	l.leader.crash()
	l.caughtUp(t)
	l.leader.start()
	l.leader.waitReady()
}

func TestCatchUpRate(t *testing.T) {
	const rate = 400_000
	l := newLagging(t, func(c *cluster.Config) { c.SnapshotMaxRate = rate })
	n, total := l.behind, l.leader.offered()
	n.wipe()
	start := time.Now()
	n.start()
	l.caughtUp(t)
	require.Equal(t, total, n.fetched())
	least := time.Duration(float64(total-rate/10) / rate * float64(time.Second))
	require.Greater(t, time.Since(start), least, "%d bytes", total)
	mfs, err := n.cfg.Registerer.(*prometheus.Registry).Gather()
	require.NoError(t, err)
	for _, mf := range mfs {
		if mf.GetName() == "deucalion_raft_catchup_seconds" {
			require.Greater(t, mf.GetMetric()[0].GetHistogram().GetSampleSum(), least.Seconds())
		}
	}
}

// While its newest snapshot is being fetched a node makes no other one, unless the log gets far too long.
func TestNoSnapshotWhileOneIsFetched(t *testing.T) {
	n := startNode(t, cluster.Config{SnapshotEntries: 40})
	n.waitReady()
	n.writeMany(0, 100)
	n.eventually("a snapshot", func() bool { return len(n.snapshotDirs()) > 0 })
	require.NoError(t, n.Snapshot(t.Context()))
	release, err := n.HoldLease()
	require.NoError(t, err)
	defer release()
	made := func() float64 { return n.metric("deucalion_raft_snapshots_total") }
	before := made()
	n.writeMany(100, 250)
	require.Never(t, func() bool { return made() > before }, 3*time.Second, 50*time.Millisecond)
	n.writeMany(250, 100+8*40+20)
	n.eventually("a snapshot in spite of it", func() bool { return made() > before })
}
