// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

var discard = slog.New(slog.DiscardHandler)

func testMetrics() *metrics { return newMetrics(prometheus.NewRegistry()) }

func entry(i uint64) *raft.Log {
	return &raft.Log{Index: i, Term: 1, Data: bytes.Repeat([]byte{byte(i)}, 300)}
}

// failingMeta makes the rotation of segments fail, as a crash or a full disk before it does.
type failingMeta struct {
	types.MetaStore
	fail atomic.Bool
}

func (m *failingMeta) CommitState(s types.PersistentState) error {
	if m.fail.Load() {
		return errors.New("no space left on device")
	}
	return m.MetaStore.CommitState(s)
}

func openTestBolt(t *testing.T, dir string) *raftboltdb.BoltStore {
	b, err := openBolt(filepath.Join(dir, stableFile), partStable, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func openTestWAL(t *testing.T, dir string, meta types.MetaStore) *wal.WAL {
	require.NoError(t, os.MkdirAll(dir, 0o755))
	w, err := wal.Open(dir, wal.WithSegmentSize(4096), wal.WithLogger(newHCLog(discard, "wal")), wal.WithMetaStore(meta))
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// sealTail leaves a log in dir whose last segment is sealed and has no successor; it returns the last index.
func sealTail(t *testing.T, dir string, entries uint64) uint64 {
	meta := &failingMeta{MetaStore: &metadb.BoltMetaDB{}}
	w := openTestWAL(t, dir, meta)
	meta.fail.Store(true)
	for i := uint64(1); ; i++ {
		l := entry(i)
		if entries == 1 {
			l.Data = make([]byte, 5000)
		}
		err := w.StoreLog(l)
		if errors.Is(err, types.ErrSealed) {
			require.NoError(t, w.Close())
			return i - 1
		}
		require.NoError(t, err)
	}
}

func TestHealSealedTail(t *testing.T) {
	for _, entries := range []uint64{1, 0} {
		t.Run(fmt.Sprint(entries), func(t *testing.T) {
			dir := t.TempDir()
			last := sealTail(t, filepath.Join(dir, "wal"), entries)
			w := openTestWAL(t, filepath.Join(dir, "wal"), &metadb.BoltMetaDB{})
			require.ErrorIs(t, w.StoreLog(entry(last+1)), types.ErrSealed, "a restart does not cure it")

			m := testMetrics()
			stable := openTestBolt(t, dir)
			h, err := newHealingLog(w, stable, discard, m)
			require.NoError(t, err)
			for i := last + 1; i < last+50; i++ {
				require.NoError(t, h.StoreLog(entry(i)))
			}
			require.Equal(t, 1.0, testutil.ToFloat64(m.logHeals))
			for i := uint64(1); i < last+50; i++ {
				var l raft.Log
				require.NoError(t, h.GetLog(i, &l))
				require.Equal(t, i, l.Index)
			}
			kept, err := stableGet(stable, keyHealEntry)
			require.NoError(t, err)
			require.Empty(t, kept)
		})
	}
}

// A crash at each point of the cure.
func TestHealInterrupted(t *testing.T) {
	for _, truncated := range []bool{false, true} {
		for _, n := range []uint64{1, 5} {
			t.Run(fmt.Sprint(truncated, n), func(t *testing.T) {
				dir := t.TempDir()
				w := openTestWAL(t, filepath.Join(dir, "wal"), &metadb.BoltMetaDB{})
				for i := uint64(1); i <= n; i++ {
					require.NoError(t, w.StoreLog(entry(i)))
				}
				stable := openTestBolt(t, dir)
				var buf bytes.Buffer
				require.NoError(t, (&wal.BinaryCodec{}).Encode(entry(n), &buf))
				require.NoError(t, stable.Set(keyHealEntry, buf.Bytes()))
				if truncated {
					require.NoError(t, w.DeleteRange(n, n))
				}
				require.NoError(t, w.Close())

				h, err := newHealingLog(openTestWAL(t, filepath.Join(dir, "wal"), &metadb.BoltMetaDB{}), stable, discard, testMetrics())
				require.NoError(t, err)
				last, err := h.LastIndex()
				require.NoError(t, err)
				require.Equal(t, n, last)
				require.NoError(t, h.StoreLog(entry(n+1)))
				var l raft.Log
				require.NoError(t, h.GetLog(n, &l))
				require.Equal(t, entry(n).Data, l.Data)
			})
		}
	}
}

// fakeLog is a log store whose disk can hang or fail.
type fakeLog struct {
	logStore
	first, last uint64
	err         error
	hang        chan struct{}
	deleted     [][2]uint64
	stored      int
}

func (f *fakeLog) StoreLogs(ls []*raft.Log) error {
	if f.hang != nil {
		<-f.hang
	}
	if f.err == nil {
		f.stored += len(ls)
	}
	return f.err
}
func (f *fakeLog) FirstIndex() (uint64, error) { return f.first, nil }
func (f *fakeLog) LastIndex() (uint64, error)  { return f.last, nil }
func (f *fakeLog) IsMonotonic() bool           { return true }
func (f *fakeLog) GetLog(i uint64, l *raft.Log) error {
	return raft.ErrLogNotFound
}

func (f *fakeLog) DeleteRange(lo, hi uint64) error {
	f.deleted = append(f.deleted, [2]uint64{lo, hi})
	return nil
}

func testGuard(t *testing.T, log logStore, keep uint64) (*guard, chan error) {
	fatal := make(chan error, 8)
	g := newGuard(log, storeOptions{
		writeTimeout: 50 * time.Millisecond, keepFrom: func() uint64 { return keep },
		metrics: testMetrics(), onFatal: func(err error) { fatal <- err },
	})
	t.Cleanup(func() { _ = g.Close() })
	return g, fatal
}

func TestGuardHungDisk(t *testing.T) {
	f := &fakeLog{hang: make(chan struct{})}
	g, fatal := testGuard(t, f, 0)
	done := make(chan error, 1)
	go func() { done <- g.StoreLog(entry(1)) }()
	select {
	case err := <-fatal:
		require.ErrorContains(t, err, "hanging")
	case <-time.After(5 * time.Second):
		t.Fatal("the watchdog slept")
	}
	close(f.hang)
	require.Error(t, <-done, "a write that was given up is not acknowledged when it comes back")
	require.Error(t, g.StoreLog(entry(2)))
	require.Empty(t, fatal, "once is enough")
}

func TestGuardFailedWriteIsNeverRetried(t *testing.T) {
	f := &fakeLog{err: errors.New("input/output error")}
	g, fatal := testGuard(t, f, 0)
	require.ErrorContains(t, g.StoreLog(entry(1)), "input/output")
	require.ErrorContains(t, <-fatal, "input/output")
	f.err = nil
	require.Error(t, g.StoreLog(entry(1)))
	require.Error(t, guardedStable{g, nil}.SetUint64([]byte("x"), 1))
	require.Zero(t, f.stored)
	require.True(t, g.IsMonotonic())
}

func TestGuardKeepsTheLogAfterTheOlderSnapshot(t *testing.T) {
	f := &fakeLog{first: 1, last: 100}
	g, _ := testGuard(t, f, 40)
	require.NoError(t, g.DeleteRange(1, 90)) // compaction
	require.NoError(t, g.DeleteRange(41, 90))
	require.NoError(t, g.DeleteRange(1, 30))
	require.NoError(t, g.DeleteRange(95, 100)) // a conflicting tail
	require.NoError(t, g.DeleteRange(1, 100))  // an installed snapshot
	require.Equal(t, [][2]uint64{{1, 40}, {1, 30}, {95, 100}, {1, 100}}, f.deleted)
}

func TestLogCache(t *testing.T) {
	f := &fakeLog{}
	c := newLogCache(f, 8, 1000) // room for three entries of 300 bytes
	for i := uint64(1); i <= 20; i++ {
		require.NoError(t, c.StoreLog(entry(i)))
		require.LessOrEqual(t, c.bytes, 1000)
	}
	var l raft.Log
	for i := uint64(18); i <= 20; i++ {
		require.NoError(t, c.GetLog(i, &l))
		require.Equal(t, i, l.Index)
	}
	require.ErrorIs(t, c.GetLog(17, &l), raft.ErrLogNotFound)
	require.NoError(t, c.DeleteRange(19, 20))
	require.ErrorIs(t, c.GetLog(20, &l), raft.ErrLogNotFound)
	require.Zero(t, c.bytes)

	// A conflicting tail is replaced.
	e := entry(19)
	e.Term = 2
	require.NoError(t, c.StoreLog(e))
	require.NoError(t, c.GetLog(19, &l))
	require.Equal(t, uint64(2), l.Term)
	require.True(t, c.IsMonotonic())
	f.err = errors.New("disk")
	require.Error(t, c.StoreLog(entry(20)))
	require.ErrorIs(t, c.GetLog(20, &l), raft.ErrLogNotFound, "what is not stored is not cached")
}

func TestCheckLog(t *testing.T) {
	snaps := func(newest, damaged uint64) *SnapshotStore {
		s := &SnapshotStore{damaged: damaged}
		if newest > 0 {
			s.metas = []*snapshotMeta{{Raft: raft.SnapshotMeta{Index: newest}}}
		}
		return s
	}
	ok := &fakeLog{first: 50, last: 100}
	require.NoError(t, checkLog(ok, snaps(80, 0), discard))
	require.NoError(t, checkLog(ok, snaps(49, 90), discard))
	require.ErrorIs(t, checkLog(ok, snaps(48, 90), discard), ErrDamaged, "a hole")
	require.ErrorIs(t, checkLog(ok, snaps(49, 101), discard), ErrDamaged, "the log does not reach the damaged one")
	require.ErrorIs(t, checkLog(&fakeLog{}, snaps(0, 10), discard), ErrDamaged)
	require.NoError(t, checkLog(&fakeLog{}, snaps(10, 0), discard))
	require.Empty(t, ok.deleted)
	require.NoError(t, checkLog(ok, snaps(200, 0), discard))
	require.Equal(t, [][2]uint64{{50, 100}}, ok.deleted, "an installed snapshot replaces the log")
}

func TestHalfBootstrapIsForgotten(t *testing.T) {
	dir := t.TempDir()
	b := openTestBolt(t, dir)
	s := &stores{log: &fakeLog{}, stable: b}
	require.NoError(t, forgetHalfBootstrap(s, &SnapshotStore{}))
	require.NoError(t, b.SetUint64([]byte("CurrentTerm"), 1))
	require.NoError(t, forgetHalfBootstrap(s, &SnapshotStore{}))
	term, err := b.GetUint64([]byte("CurrentTerm"))
	require.NoError(t, err)
	require.Zero(t, term)
	require.NoError(t, b.SetUint64([]byte("CurrentTerm"), 1))
	require.NoError(t, b.SetUint64([]byte("LastVoteTerm"), 1))
	require.NoError(t, forgetHalfBootstrap(s, &SnapshotStore{}))
	term, _ = b.GetUint64([]byte("CurrentTerm"))
	require.Equal(t, uint64(1), term, "it has voted")
}

func TestInflight(t *testing.T) {
	f := newInflight(2*minWeight, testMetrics())
	a, err := f.admit(t.Context(), 1)
	require.NoError(t, err)
	a.hold()
	b, err := f.admit(t.Context(), minWeight)
	require.NoError(t, err)
	_, err = f.admit(t.Context(), 1)
	require.ErrorIs(t, err, ErrOverloaded)
	a.release()
	_, err = f.admit(t.Context(), 1)
	require.ErrorIs(t, err, ErrOverloaded, "Raft still holds it")
	a.release()
	c, err := f.admit(t.Context(), 1)
	require.NoError(t, err)
	b.release()
	c.release()
	d, err := f.admit(t.Context(), 1<<30)
	require.NoError(t, err, "an entry larger than the bound passes alone")
	d.release()
	require.Zero(t, testutil.ToFloat64(f.metrics.inflight))
}

func TestBatcherSharesOnlyLaterRounds(t *testing.T) {
	var calls atomic.Int64
	gate := make(chan struct{})
	b := newBatcher(t.Context(), func(context.Context) (uint64, error) {
		n := calls.Add(1)
		<-gate
		return uint64(n), nil
	})
	var wg sync.WaitGroup
	var first uint64
	wg.Go(func() { first, _ = b.do(t.Context()) })
	require.Eventually(t, func() bool { return calls.Load() == 1 }, 5*time.Second, time.Millisecond)
	for range 50 { // they come while the first round is under way: none may get its result
		wg.Go(func() {
			i, err := b.do(t.Context())
			require.NoError(t, err)
			require.Equal(t, uint64(2), i)
		})
	}
	require.Eventually(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.next != nil && b.next.waiters == 50
	}, 5*time.Second, time.Millisecond)
	close(gate)
	wg.Wait()
	require.Equal(t, uint64(1), first)
	require.Equal(t, int64(2), calls.Load())
	b.wait()
	_, err := b.do(t.Context())
	require.ErrorIs(t, err, ErrStopped)
}

func TestTransferWatchdog(t *testing.T) {
	fatal := make(chan error, 2)
	n := &Node{cfg: Config{Logger: discard, OnFatal: func(err error) { fatal <- err }}, metrics: testMetrics()}
	var since time.Time
	n.checkStuck(&since, raft.ErrLeadershipTransferInProgress)
	require.False(t, since.IsZero())
	n.checkStuck(&since, nil)
	require.True(t, since.IsZero(), "it has ended")
	since = time.Now().Add(-transferStuck / 2)
	n.checkStuck(&since, raft.ErrLeadershipTransferInProgress)
	require.Empty(t, fatal)
	since = time.Now().Add(-transferStuck - time.Second)
	n.checkStuck(&since, raft.ErrLeadershipTransferInProgress)
	require.ErrorContains(t, <-fatal, "raft#696")
}
