// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

func TestCatchUpFetchesOnlyWhatIsMissing(t *testing.T) {
	t.Parallel()
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
	require.Equal(t, l.leader.content(), n.content())
	require.Zero(t, n.fetched())
}

func TestCatchUpOfAWipedNode(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
	l := newLagging(t, func(c *cluster.Config) { c.SnapshotMaxRate = 100_000 })
	n, total := l.behind, l.leader.offered()
	n.wipe()
	n.start()
	var st *cluster.CatchUpStatus
	n.eventually("half is there", func() bool {
		st = n.CatchUp()
		leader, _ := n.Leader() // who has been offering in vain for longer than a heartbeat timeout
		return st != nil && st.FetchBytes > 0 && st.FetchedBytes > st.FetchBytes/2 && leader == l.leader.ID()
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

// A node that was cut off, and has applied more than is in its snapshot, keeps all of that.
func TestCatchUpOfANodeThatWasCutOff(t *testing.T) {
	t.Parallel()
	l := newEven(t, func(c *cluster.Config) { c.SnapshotMaxRate = 100_000 })
	n := l.behind
	last := l.total - l.missing
	l.leader.fill(last, last+1)
	l.even(last + 1)
	_, snapshot := n.newest()
	applied, _ := n.fsm.Applied()
	require.Greater(t, applied, snapshot.Index)
	n.proxy.block()
	l.total++
	l.goOn(t)
	total := l.leader.offered()
	n.proxy.to(n.ListenAddress())
	var from uint64
	n.eventually("it knows from where", func() bool {
		if st := n.CatchUp(); st != nil {
			from = st.FromIndex
		}
		return from > 0
	})
	require.GreaterOrEqual(t, from, applied)
	l.caughtUp(t)
	t.Logf("offered %d bytes, fetched %d, kept %d", total, n.fetched(), n.kept())
	require.Less(t, n.fetched(), total/3)
}

// A block that has rotted on this node's own disk is taken from the other one.
func TestCatchUpReplacesADamagedBlock(t *testing.T) {
	t.Parallel()
	// A merge that meets the damage first would have the process started again.
	l := newLagging(t, func(c *cluster.Config) { c.OnFatal = func(error) {} })
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
	t.Parallel()
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
	t.Parallel()
	l := newLagging(t, nil)
	n := l.behind
	n.wipe()
	files := l.leader.chunkFiles()
	flipBit(t, files[0])
	n.start()
	n.eventually("given up", func() bool { return n.metric("deucalion_raft_catchup_completed_total") >= 1 })
	require.Zero(t, n.metric("deucalion_raft_snapshot_installs_total"))
	before, offered := n.fetched(), l.leader.snapshotDirs()
	flipBit(t, files[0])
	l.caughtUp(t)
	require.Less(t, n.fetched()-before, 2*l.leader.offered())
	if leader, _ := leaderOf(t, l.nodes); leader.ID() == l.leader.ID() && slices.Equal(offered, l.leader.snapshotDirs()) {
		// The offer was the same one all the time, no rival was elected meanwhile.
		require.Less(t, n.fetched()-before, l.leader.offered()+1, "what was right is kept")
	}
}

// A fetch goes on when the leader changes, and its result is the base for the new leader's snapshot.
func TestCatchUpSurvivesANewLeader(t *testing.T) {
	t.Parallel()
	l := newLagging(t, func(c *cluster.Config) { c.SnapshotMaxRate = 300_000 })
	n, total := l.behind, l.leader.offered()
	n.wipe()
	n.start()
	n.eventually("a third is there", func() bool {
		st := n.CatchUp()
		return st != nil && st.FetchBytes > 0 && st.FetchedBytes > st.FetchBytes/3
	})
	l.leader.transfer("")
	l.caughtUp(t)
	leader, _ := leaderOf(t, l.nodes)
	require.NotEqual(t, l.leader.ID(), leader.ID())
	t.Logf("offered %d bytes, fetched %d", total, n.fetched())
	require.Less(t, n.fetched(), total*3/2)
}

// A source that dies is replaced by the next leader.
func TestCatchUpWithoutItsSource(t *testing.T) {
	t.Parallel()
	l := newLagging(t, func(c *cluster.Config) { c.SnapshotMaxRate = 300_000 })
	n := l.behind
	n.wipe()
	n.start()
	n.SetPatience(time.Second)
	n.eventually("it has begun", func() bool { st := n.CatchUp(); return st != nil && st.FetchedBytes > 0 })
	source := n.CatchUp().Source
	require.Equal(t, l.leader.ID(), source)
	// The wiped node has no vote, so the lead must be in other hands before its holder dies.
	l.leader.transfer("")
	n.eventually("another leader", func() bool { id, ok := n.Leader(); return ok && id != source })
	l.leader.crash()
	l.caughtUp(t)
	l.leader.start()
	l.leader.waitReady()
}

func TestCatchUpRate(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	n.writeMany(250, 100+8*40*5/4+20) // with the largest jitter
	n.eventually("a snapshot in spite of it", func() bool { return made() > before })
}

// The answer of a node that has installed the snapshot is lost: cut off, or later than the leader waits.
func TestCatchUpWhoseAnswerIsLost(t *testing.T) {
	l := newLagging(t, nil)
	n := l.behind
	n.start()
	n.eventually("an offer", func() bool { return n.fetched() > 0 }) // a leader that is new must have heard first where this node is
	n.proxy.mute.Store(true)
	_, offered := l.leader.newest()
	n.eventually("installed", func() bool { applied, _ := n.fsm.Applied(); return applied >= offered.Index })
	lost := n.proxy.muted.Load() + 5 // heartbeats are answered after the offer
	n.eventually("answers are lost", func() bool { return n.proxy.muted.Load() >= lost })
	n.proxy.mute.Store(false)
	l.caughtUp(t)
	require.Equal(t, 1.0, n.metric("deucalion_raft_snapshot_installs_total"))
}
