// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

func exemplarAt(ts int64, i int) exemplar.Exemplar {
	return exemplar.Exemplar{Labels: labels.FromStrings("trace", fmt.Sprint(i)), Ts: ts, Value: 1}
}

func waitTask(t *testing.T, f *FSM, id string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	err := f.WaitTask(ctx, id)
	require.NoError(t, ctx.Err(), "task %s does not end", id)
	return err
}

// deleted has one frozen memtable with a delete, so that a clean cannot end.
func deleted(t *testing.T) (*FSM, *raftLog) {
	f, l := alone(t)
	put(t, f, l, name("x"), base, 1)
	put(t, f, l, name("y"), base, 1)
	l.apply(t, EncodeDelete(Delete{ID: "d", Selectors: [][]*labels.Matcher{equals(model.MetricNameLabel, "x")}, Mint: 0, Maxt: base * 2}))
	return f, l
}

func tombstones(f *FSM) (n uint64) {
	for _, m := range f.BlockMetas() {
		n += m.Stats.NumTombstones
	}
	return n
}

// A clean that is under way survives a restart from a snapshot.
func TestPendingClean(t *testing.T) {
	f, l := deleted(t)
	l.apply(t, EncodeClean("c"))
	dir := persist(t, f)
	_, err := f.Storage().FlushOne()
	require.NoError(t, err)
	require.NoError(t, waitTask(t, f, "c"))
	require.Zero(t, tombstones(f))

	g := newFSM(t, dir)
	require.NoError(t, waitTask(t, g, "c"))
	require.Zero(t, tombstones(g))
	require.Equal(t, dump(t, f), dump(t, g))

	done := newFSM(t, persist(t, f))
	require.ErrorIs(t, done.WaitTask(t.Context(), "c"), ErrUnknownTask, "a finished one is not carried on")
}

// A node that has finished a clean gets the snapshot of one that has not: it has
// the deleted samples on disk again, and must clean again.
func TestPendingCleanOfAnotherNode(t *testing.T) {
	f, l := deleted(t)
	g := newFSM(t, "")
	l.apply(t, EncodeClean("c"))
	dir := persist(t, f)
	l.catchUp(g)
	_, err := g.Storage().FlushOne()
	require.NoError(t, err)
	require.NoError(t, waitTask(t, g, "c"))
	require.Zero(t, tombstones(g))
	require.NoError(t, g.Restore(dir))
	require.NoError(t, waitTask(t, g, "c"))
	require.Zero(t, tombstones(g))
	require.Equal(t, dump(t, f), dump(t, g))
}

// A clean that ends while a snapshot is taken may have come too late for its samples.
func TestCleanEndsDuringSnapshot(t *testing.T) {
	reg := prometheus.NewRegistry()
	f := openFSM(t, Options{Dir: t.TempDir(), Storage: storage.Options{Manual: true}, Registerer: reg}, "")
	l := newLog(f)
	put(t, f, l, name("x"), base, 1)
	put(t, f, l, name("y"), base, 1)
	l.apply(t, EncodeDelete(Delete{ID: "d", Selectors: [][]*labels.Matcher{equals(model.MetricNameLabel, "x")}, Mint: 0, Maxt: base * 2}))
	put(t, f, l, name("z"), base, 1)
	l.apply(t, EncodeClean("c"))

	f.metadata.mu.Lock() // holds the snapshot up once it has frozen the samples of z and got hold of all
	taken := make(chan *Snapshot, 1)
	go func() {
		s, err := f.Snapshot()
		assert.NoError(t, err)
		taken <- s
	}()
	const frozen = "# HELP deucalion_storage_frozen_memtables Frozen memtables that wait to be flushed.\n" +
		"# TYPE deucalion_storage_frozen_memtables gauge\ndeucalion_storage_frozen_memtables 2\n"
	require.Eventually(t, func() bool {
		return testutil.GatherAndCompare(reg, strings.NewReader(frozen), "deucalion_storage_frozen_memtables") == nil
	}, deadline, time.Millisecond)
	_, err := f.Storage().FlushOne()
	assert.NoError(t, err)
	assert.NoError(t, waitTask(t, f, "c"))
	f.metadata.mu.Unlock()
	s := <-taken
	defer s.Release()
	require.Equal(t, []string{"c"}, s.header.PendingCleans)
}

func TestUserSnapshot(t *testing.T) {
	f, l := deleted(t)
	require.Contains(t, l.propose(t, EncodeUserSnapshot(UserSnapshot{"bad", "../x"})).Err, "snapshot name")
	require.ErrorIs(t, f.WaitTask(t.Context(), "bad"), ErrUnknownTask)
	for _, n := range []string{"", ".", "..", ".x", "a/b", "a.tmp", "-x"} {
		require.False(t, validName(n), n)
	}
	require.Empty(t, l.propose(t, EncodeUserSnapshot(UserSnapshot{"s", "first"})).Err)
	require.NoError(t, waitTask(t, f, "s"))
	dir := filepath.Join(f.opts.Dir, "snapshots", "first")
	before, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, before, 1)

	put(t, f, l, name("y"), base+1, 2)
	l.apply(t, EncodeUserSnapshot(UserSnapshot{"again", "first"})) // as in a replay of the log
	require.NoError(t, waitTask(t, f, "again"))
	after, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Equal(t, before[0].Name(), after[0].Name(), "one that is there is left alone")
}

// The replay after a restart does not make again what somebody has removed, and makes what is missing else.
func TestUserSnapshotRemoved(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, Storage: storage.Options{Manual: true}}
	snapshots := func(names ...string) { // applies their entries to a node that starts
		f, err := Open(o, "")
		require.NoError(t, err)
		defer func() { require.NoError(t, f.Close()) }()
		l := newLog(f)
		for _, n := range names {
			require.Empty(t, l.propose(t, EncodeUserSnapshot(UserSnapshot{"id-" + n, n})).Err)
			require.NoError(t, waitTask(t, f, "id-"+n))
		}
	}
	a, b, c := filepath.Join(dir, "snapshots", "a"), filepath.Join(dir, "snapshots", "b"), filepath.Join(dir, "snapshots", "c")
	require.NoError(t, os.MkdirAll(b, 0o777)) // a crash came before its name was noted
	snapshots("a", "b")
	require.NoError(t, os.RemoveAll(a))
	require.NoError(t, os.RemoveAll(b))
	snapshots("a", "b", "c")
	require.NoDirExists(t, a)
	require.NoDirExists(t, b)
	require.DirExists(t, c)
}

// Names are forgotten some day, the oldest first.
func TestMadeSnapshotsAreBounded(t *testing.T) {
	m := openMade(t.TempDir())
	for i := range taskMemory {
		m.names = append(m.names, fmt.Sprint("n", i))
	}
	require.NoError(t, m.add("new"))
	m = openMade(filepath.Dir(m.path))
	require.Len(t, m.names, taskMemory)
	require.False(t, m.has("n0"))
	require.True(t, m.has("n1"))
	require.True(t, m.has("new"))
}

// The applier asks for a name while another one is noted: it does not wait for the disk.
func TestNotingASnapshotHoldsNobodyUp(t *testing.T) {
	m := openMade(t.TempDir())
	m.mu.Lock() // as has does
	done := make(chan error, 1)
	go func() { done <- m.add("a") }()
	noted := assert.Eventually(t, func() bool {
		b, err := os.ReadFile(m.path)
		return err == nil && string(b) == "a\n"
	}, deadline, time.Millisecond, "it is written with the lock that the applier takes")
	m.mu.Unlock()
	require.NoError(t, <-done)
	require.True(t, noted)
	require.True(t, m.has("a"))
}

// What a crash has left of a user snapshot would hold the room of blocks that are merged away.
func TestUnfinishedUserSnapshot(t *testing.T) {
	dir := t.TempDir()
	unfinished, finished := filepath.Join(dir, "snapshots", "a"+unfinishedSuffix), filepath.Join(dir, "snapshots", "b")
	for _, d := range []string{unfinished, finished} {
		require.NoError(t, os.MkdirAll(filepath.Join(d, "block", "chunks"), 0o777))
	}
	openFSM(t, Options{Dir: dir, Storage: storage.Options{Manual: true}}, "")
	require.NoDirExists(t, unfinished)
	require.DirExists(t, finished)
}

// Tasks are bounded; those beyond fail and say so, here and in WaitTask alone.
func TestTooManyTasks(t *testing.T) {
	f, l := deleted(t) // nothing flushes, so no clean ends
	for i := range maxRunningTasks + 1 {
		l.apply(t, EncodeClean(fmt.Sprint("c", i)))
	}
	require.ErrorContains(t, waitTask(t, f, fmt.Sprint("c", maxRunningTasks)), "under way")
	require.Equal(t, maxRunningTasks, f.tasks.running())
	_, err := f.Storage().FlushOne()
	require.NoError(t, err)
	for i := range maxRunningTasks {
		require.NoError(t, waitTask(t, f, fmt.Sprint("c", i)))
	}
	l.apply(t, EncodeClean("later"))
	require.NoError(t, waitTask(t, f, "later"))
	for i := range taskMemory + 10 {
		l.apply(t, EncodeClean(fmt.Sprint("many", i)))
		require.NoError(t, waitTask(t, f, fmt.Sprint("many", i)))
	}
	require.ErrorIs(t, f.WaitTask(t.Context(), "c0"), ErrUnknownTask)
	require.LessOrEqual(t, len(f.tasks.known), taskMemory)
}

// Close does not wait for what a task has the store do, the rewriting of blocks above all.
func TestCloseInterruptsStore(t *testing.T) {
	f, l := alone(t)
	put(t, f, l, name("x"), base, 1)
	put(t, f, l, name("x"), base+minute, 2)
	require.NoError(t, f.Storage().Freeze())
	_, err := f.Storage().FlushOne()
	require.NoError(t, err)

	cleans, end := make(chan int64), t.Context()
	require.True(t, f.tasks.start("endless", true, func(context.Context) error {
		for i := int64(1); end.Err() == nil; i++ {
			if err := f.Storage().Delete(base+i, base+i, equals(model.MetricNameLabel, "x")); err != nil {
				return err
			}
			if err := f.Storage().Clean(context.Background()); err != nil {
				return err
			}
			select {
			case cleans <- i:
			default:
			}
		}
		return nil
	}))
	select {
	case <-cleans:
	case <-time.After(deadline):
		require.FailNow(t, "no clean ends")
	}
	closed := make(chan error, 1)
	go func() { closed <- f.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(deadline):
		require.FailNow(t, "Close waits for the cleans")
	}
	require.ErrorIs(t, waitTask(t, f, "endless"), context.Canceled)
}

// Close ends tasks and waits that have no end.
func TestCloseInterrupts(t *testing.T) {
	f, l := deleted(t)
	l.apply(t, EncodeClean("c"))
	waits := make(chan error, 1)
	go func() { waits <- f.Wait(t.Context(), 1000) }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, f.WaitTask(ctx, "c"), context.Canceled)
	require.NoError(t, f.Close())
	require.ErrorIs(t, <-waits, ErrClosed)
	require.Error(t, waitTask(t, f, "c"))
}
