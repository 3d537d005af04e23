// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// No test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Deletes that come between the making of a block and its installation hit it.
func TestDeleteRacesFlush(t *testing.T) {
	x := manual(t)
	x.fill("a", base, 10)
	x.fill("b", base, 10)
	x.freeze()
	m := x.frozen[0]
	x.delete("a", base, base+60_000) // before the flush begins
	raw, err := x.writeRaw(m)
	require.NoError(t, err)
	x.delete("a", base+5*60_000, base+6*60_000) // raw blocks are written
	x.delete("b", math.MinInt64, math.MaxInt64)
	x.delete("none", math.MinInt64, math.MaxInt64)
	x.add("b", base+3*60_000, 33) // written after the delete
	const want = "a: 2=2 3=3 4=4 7=7 8=8 9=9\nb: 3=33\n"
	require.Equal(t, want, x.all())
	require.NoError(t, x.installFlushed(m, raw))
	require.Empty(t, x.frozen)
	require.Equal(t, want, x.all())
	x.freezeFlush()
	require.Equal(t, want, x.all())
	require.NoError(t, x.Clean(t.Context()))
	require.Equal(t, want, x.all())
	x.noLeftovers()
}

// merging is a store with three blocks and what rewrite has of them once the merged
// block is there.
func merging(t *testing.T) (*tester, *job, []*block, []blockFiles) {
	x := manual(t)
	for i := range int64(3) {
		x.fill("a", base+i*partition, 3)
		x.fill("b", base+i*partition, 3)
		x.freezeFlush()
	}
	x.mu.Lock()
	j, old := x.startJobLocked(), append([]*block(nil), x.blocks...)
	work := t.TempDir()
	var dirs []string
	for _, b := range old {
		dirs = append(dirs, work+"/src/"+b.files.ULID.String())
		require.NoError(t, linkBlock(b.Dir(), dirs[len(dirs)-1]))
	}
	x.mu.Unlock()
	t.Cleanup(func() { x.endJob(j) })
	made, err := x.compact(t.Context(), work, dirs, 0)
	require.NoError(t, err)
	return x, j, old, made
}

// The same with a merge, and a retention that drops what is being merged.
func TestDeleteRacesMerge(t *testing.T) {
	t.Run("delete", func(t *testing.T) {
		x, j, old, made := merging(t)
		x.delete("a", math.MinInt64, base+partition+60_000)
		x.delete("b", base, base)
		require.Len(t, j.dels, 2)
		want := x.all()
		require.Equal(t, "a: 122=2 240=0 241=1 242=2\nb: 1=1 2=2 120=0 121=1 122=2 240=0 241=1 242=2\n", want)
		require.NoError(t, x.installRewritten(j, old, made, x.blocksDir))
		require.Len(t, x.BlockMetas(), 1)
		require.Equal(t, want, x.all())
		require.NoError(t, x.Clean(t.Context()))
		require.Equal(t, want, x.all())
		x.noLeftovers()
	})
	t.Run("retention", func(t *testing.T) {
		x, j, old, made := merging(t)
		x.SetCutoff(base + partition)
		want := x.all()
		require.Equal(t, "a: 120=0 121=1 122=2 240=0 241=1 242=2\nb: 120=0 121=1 122=2 240=0 241=1 242=2\n", want)
		require.NoError(t, x.installRewritten(j, old, made, x.blocksDir))
		require.Len(t, x.BlockMetas(), 1)
		require.Equal(t, want, x.all())
		x.noLeftovers()
	})
	t.Run("reset", func(t *testing.T) {
		x, j, old, made := merging(t)
		require.NoError(t, x.Reset("", nil, NoTime, NoTime))
		require.NoError(t, x.installRewritten(j, old, made, x.blocksDir))
		require.Empty(t, x.BlockMetas(), "the result of a merge of former blocks is dropped")
		require.Empty(t, x.all())
		x.noLeftovers()
	})
}

// The deletes that came during a merge take the disk's time: neither reads nor the
// applier wait for it.
func TestDeletesOfAMergeHoldNobodyUp(t *testing.T) {
	x, j, old, made := merging(t)
	x.delete("a", base, base)
	want := x.all()
	x.mu.RLock()
	dir := filepath.Join(x.blocksDir, made[0].ULID.String())
	done := make(chan error, 1)
	go func() { done <- x.installRewritten(j, old, made, filepath.Dir(dir)) }()
	applied := assert.Eventually(t, func() bool {
		m, err := readMeta(dir)
		return err == nil && m.Stats.NumTombstones == 1
	}, deadline, time.Millisecond, "the delete waits for the lock")
	x.mu.RUnlock()
	require.NoError(t, <-done)
	require.True(t, applied)
	require.Len(t, x.BlockMetas(), 1)
	require.Equal(t, want, x.all())
	x.noLeftovers()
}

// A delete of other times does not touch the result of a merge.
func TestDeleteBesideAMerge(t *testing.T) {
	x, j, old, made := merging(t)
	x.delete("a", math.MinInt64, base-1)
	x.delete("a", base+3*partition, math.MaxInt64)
	require.Len(t, j.dels, 2)
	before, err := os.Stat(filepath.Join(made[0].dir, "meta.json"))
	require.NoError(t, err)
	require.NoError(t, x.installRewritten(j, old, made, x.blocksDir))
	after, err := os.Stat(filepath.Join(x.blocksDir, made[0].ULID.String(), "meta.json"))
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "it was written anew")
}

// Flush and merge in the background while samples are written and deleted.
func TestDeleteRacesBackground(t *testing.T) {
	reg := prometheus.NewRegistry()
	x := openStore(t, Options{FreezeSamples: 40, Registerer: reg})
	want := map[int64]bool{}
	for i := range int64(1500) {
		x.add("a", base+i*partition/100, 1) // 15 partitions
		want[i] = true
		if i%7 == 6 {
			from := i - i%50/2
			x.delete("a", base+from*partition/100, base+(from+1)*partition/100)
			delete(want, from)
			delete(want, from+1)
		}
	}
	eventually(t, "all is flushed", func() bool { return x.frozenCount() == 0 })
	require.Equal(t, len(want), strings.Count(x.all(), "="))
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	require.NoError(t, x.Clean(ctx))
	require.Equal(t, len(want), strings.Count(x.all(), "="))
	require.Positive(t, testutil.ToFloat64(x.m.merges))
	x.freeze()
	eventually(t, "the rest is flushed", func() bool { return x.frozenCount() == 0 })
	require.Equal(t, len(want), strings.Count(x.all(), "="))
}

func (x *tester) frozenCount() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.frozen)
}

func TestMaybeFreeze(t *testing.T) {
	x := openStore(t, Options{Manual: true, FreezeSpan: 10 * time.Minute, FreezeSamples: 20})
	x.fill("a", base, 10)
	require.Empty(t, x.frozen, "nine minutes")
	x.add("a", base+10*60_000, 1)
	require.Len(t, x.frozen, 1, "ten minutes after the first")
	x.add("a", base+20*60_000-1, 1)
	require.Len(t, x.frozen, 1)
	x.add("a", base+20*60_000, 1)
	require.Len(t, x.frozen, 2)
	for i := range int64(19) { // backfill does not move the largest timestamp
		x.add("b", base-i, 1)
	}
	require.Len(t, x.frozen, 2)
	x.add("b", base-100, 1)
	require.Len(t, x.frozen, 3, "twenty samples")
	require.NoError(t, x.MaybeFreeze(base+100*60_000))
	require.Len(t, x.frozen, 3, "an empty memtable stays")

	x.fill("c", base+110*60_000, 1)
	require.Len(t, x.frozen, 4)
	x.fill("c", base+130*60_000, 19)
	require.Len(t, x.frozen, 4, "with many unflushed, time alone is no reason")
	x.fill("c", base+150*60_000, 1)
	require.Len(t, x.frozen, 5)
}

func TestResetAndReopen(t *testing.T) {
	x := manual(t)
	x.fill("a", base, 3)
	x.freezeFlush()
	x.add("a", base+180_000, 3)
	want := x.all()
	snap, err := x.Snapshot()
	require.NoError(t, err)
	dst := t.TempDir()
	files, err := snap.Persist(t.Context(), dst)
	require.NoError(t, err)
	snap.Release()
	x.fill("b", base, 5)
	require.NoError(t, x.Reset(dst, files, base, base+180_000))
	require.Equal(t, want, x.all())
	require.Equal(t, base, x.Cutoff())
	x.noLeftovers()

	files[0].ULID[3]++ // a block that is not there
	x.add("c", base, 1)
	want = x.all()
	require.ErrorIs(t, x.Reset(dst, files, NoTime, NoTime), os.ErrNotExist)
	require.Equal(t, want, x.all(), "on an error nothing changes")
	x.noLeftovers()

	require.NoError(t, x.Close())
	_, err = x.Querier(0, 1)
	require.ErrorIs(t, err, ErrClosed)
	_, _, err = x.Lookup(nil, series("a"), base)
	require.ErrorIs(t, err, ErrClosed)
	y := openStore(t, Options{Dir: x.opts.Dir, Manual: true})
	require.Empty(t, y.all(), "a store that is opened is empty")
	y.noLeftovers()
}

// Histograms go through freeze, flush and merge too.
func TestLookupHistograms(t *testing.T) {
	x := manual(t)
	var r Ref
	a := x.Appender()
	h, fh := tsdbutil.GenerateTestHistogram(2), tsdbutil.GenerateTestCustomBucketsFloatHistogram(3)
	require.NoError(t, a.Append(&r, series("h"), Sample{T: base, H: h}))
	require.NoError(t, a.Append(&r, series("h"), Sample{T: base + 1, FH: fh}))
	require.NoError(t, a.Commit())
	for range 2 {
		got, found, err := x.Lookup(&r, series("h"), base)
		require.NoError(t, err)
		require.True(t, found)
		require.True(t, h.Equals(got.H))
		got, found, err = x.Lookup(nil, series("h"), base+1)
		require.NoError(t, err)
		require.True(t, found)
		require.True(t, fh.Equals(got.FH))
		x.freezeFlush()
	}
}

// Rollback leaves nothing.
func TestRollback(t *testing.T) {
	x := manual(t)
	var r Ref
	a := x.Appender()
	require.NoError(t, a.Append(&r, series("a"), Sample{T: base, V: 1}))
	require.NoError(t, a.Rollback())
	require.Empty(t, x.all())
	x.add("a", base, 2)
	require.Equal(t, "a: 0=2\n", x.all())
}

// Queries, writes, deletes and cleans at once.
func TestConcurrentQueries(t *testing.T) {
	x := openStore(t, Options{FreezeSamples: 30})
	ctx, cancel := context.WithTimeout(t.Context(), 10*deadline) // of all, on a loaded machine
	defer cancel()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				q, err := x.Querier(base, base+100*partition)
				if err != nil {
					t.Error(err)
					return
				}
				if s := dump(t, q); s != "" && !strings.HasPrefix(s, "a: 0=0") {
					t.Errorf("the first sample is missing: %.100s", s)
				}
				if _, _, err := q.LabelValues(ctx, "job", nil); err != nil {
					t.Error(err)
				}
				if _, _, err := x.Lookup(nil, series("a"), base); err != nil {
					t.Error(err)
				}
				if err := q.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			if err := x.Clean(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 600 {
		x.add("a", base+int64(i)*600_000, float64(i))
		if i%10 == 9 {
			x.delete("a", base+int64(i-5)*600_000, base+int64(i-4)*600_000)
		}
	}
	close(stop)
	wg.Wait()
}
