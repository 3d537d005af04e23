// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A query beside a change of the cutoff sees what was there before or after it, nothing in between.
func TestQueryRacesCutoff(t *testing.T) {
	x := manual(t)
	x.fill("a", base, 3)
	x.fill("a", base+partition, 3)
	x.freezeFlush()
	require.Len(t, x.BlockMetas(), 2)
	x.mu.Lock() // as SetCutoff does; the query comes to this lock first
	got := make(chan string, 1)
	go func() {
		q, err := x.Querier(math.MinInt64, math.MaxInt64)
		if !assert.NoError(t, err) {
			got <- ""
			return
		}
		defer q.Close()
		got <- dump(t, q)
	}()
	for range 1000 {
		runtime.Gosched() // the query begins
	}
	x.cutoff.Store(base + partition + 60_000)
	x.dropExpiredLocked()
	x.mu.Unlock()
	require.Equal(t, "a: 121=1 122=2\n", <-got)
}

// Clean gives the space back, and no file holds what was deleted.
func TestCleanErases(t *testing.T) {
	x := manual(t)
	// A chunk begins with its first value as it is, so it can be found in a file.
	const secret = 1234.5678
	needle := string(binary.BigEndian.AppendUint64(nil, math.Float64bits(secret)))
	for i := range int64(4) {
		for k := range 40 {
			x.add("secret-"+strings.Repeat("x", k), base+i*partition-1, secret)
			x.fill("secret-"+strings.Repeat("x", k), base+i*partition, 30)
		}
		x.fill("kept", base+i*partition, 30)
		x.freezeFlush()
	}
	x.add("secret-frozen", base+4*partition, secret)
	x.delete("secret-.*", math.MinInt64, math.MaxInt64)
	require.Len(t, x.frozen, 1)
	want := x.all()
	require.Equal(t, 1, strings.Count(want, "\n"))
	require.NotEmpty(t, fileWith(t, x.opts.Dir, needle), "a delete alone leaves the samples on disk")
	size := x.BlocksSize()

	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- x.Clean(ctx) }() // waits for the flush of the frozen memtable
	for len(done) == 0 {
		_, err := x.FlushOne()
		require.NoError(t, err)
		require.NoError(t, ctx.Err())
	}
	require.NoError(t, <-done)
	require.Zero(t, x.tombstones())
	require.Less(t, x.BlocksSize(), size/2)
	require.Equal(t, want, x.all())
	require.Len(t, x.BlockMetas(), 4, "of the frozen memtable nothing is left")
	x.noLeftovers()
	require.Empty(t, fileWith(t, x.opts.Dir, needle))
}

func TestCleanIsInterrupted(t *testing.T) {
	x := manual(t)
	x.fill("a", base, 3)
	x.delete("a", base, base) // frozen, and nobody flushes
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.Clean(ctx) }()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	go func() { done <- x.Clean(t.Context()) }()
	require.NoError(t, x.Close())
	require.ErrorIs(t, <-done, ErrClosed)
}

// A clean that a reset overtakes begins again: what it was asked for is done with what is there now.
func TestCleanOverReset(t *testing.T) {
	dirty := func() *tester {
		x := manual(t)
		x.fill("a", base, 3)
		x.freezeFlush()
		x.delete("a", base, base)
		require.NotZero(t, x.tombstones())
		return x
	}
	x, y := dirty(), dirty()
	snap, err := y.Snapshot()
	require.NoError(t, err)
	defer snap.Release()
	dir := filepath.Join(filepath.Dir(y.opts.Dir), "snapshot")
	require.NoError(t, os.Mkdir(dir, 0o777))
	blocks, err := snap.Persist(t.Context(), dir)
	require.NoError(t, err)
	reset := sync.OnceFunc(func() { assert.NoError(t, x.Reset(dir, blocks, NoTime, base)) })
	require.NoError(t, x.Clean(asked{t.Context(), func() {
		if x.mu.TryLock() { // it knows which blocks to rewrite
			x.mu.Unlock()
			reset()
		}
	}}))
	require.Len(t, x.BlockMetas(), 1)
	require.Zero(t, x.tombstones())
}

// asked calls f whenever somebody wants to know whether it has ended.
type asked struct {
	context.Context
	f func()
}

func (c asked) Err() error {
	c.f()
	return c.Context.Err()
}

func TestCutoff(t *testing.T) {
	x := manual(t)
	for i := range int64(3) {
		x.fill("a", base+i*partition, 3)
		x.freezeFlush()
	}
	x.fill("a", base+3*partition, 3)
	require.Equal(t, NoTime, x.Cutoff())
	require.Equal(t, base, x.StartTime())

	x.SetCutoff(base + partition + 60_000)
	require.Len(t, x.BlockMetas(), 2, "a block wholly below is dropped")
	const want = "a: 121=1 122=2 240=0 241=1 242=2 360=0 361=1 362=2\n"
	require.Equal(t, want, x.all())
	require.Equal(t, "a: 121=1\n", x.between(math.MinInt64, base+partition+60_000))
	require.Empty(t, x.between(math.MinInt64, base+partition+59_999))
	require.Empty(t, x.between(base, base+partition))
	_, found, err := x.Lookup(nil, series("a"), base+partition)
	require.NoError(t, err)
	require.False(t, found)
	x.noLeftovers()

	x.SetCutoff(base) // never goes back
	require.Equal(t, base+partition+60_000, x.Cutoff())
	require.Equal(t, want, x.all())

	x.SetCutoff(base + 10*partition)
	require.Empty(t, x.all())
	require.Empty(t, x.BlockMetas())
	x.freezeFlush()
	require.Empty(t, x.BlockMetas(), "a memtable that is expired when it is flushed leaves no block")
	x.noLeftovers()
}

// The disk holds little more than retention keeps, however blocks are merged.
func TestMergedBlocksExpire(t *testing.T) {
	x := manual(t)
	const kept = 24 * partition
	most := int64(0)
	for now := base; now < base+4*kept; now += partition {
		x.fill("a", now, 2)
		x.freezeFlush()
		x.SetCutoff(now - kept)
		x.mergeAll()
		most = max(most, now-x.BlockMetas()[0].MinTime)
	}
	require.Less(t, len(x.BlockMetas()), 13)
	require.LessOrEqual(t, most, kept+kept/8)
	require.Equal(t, 31*24*time.Hour, maxBlockSpan(31*24*time.Hour, base, NoTime))
	require.Equal(t, 31*24*time.Hour, maxBlockSpan(31*24*time.Hour, base, -base))
	require.Equal(t, 2*time.Hour, maxBlockSpan(2*time.Hour, base, base-1))
	require.Equal(t, 36*time.Hour, maxBlockSpan(31*24*time.Hour, base, base-15*12*partition))
}

func TestCutoffForSize(t *testing.T) {
	x := manual(t)
	_, ok := x.CutoffForSize(0)
	require.False(t, ok)
	for i := range int64(3) {
		x.fill("a", base+i*partition, 3)
		x.freezeFlush()
	}
	size := x.BlocksSize()
	_, ok = x.CutoffForSize(size)
	require.False(t, ok)
	for i, limit := range []int64{size - 1, size / 2, 1} {
		c, ok := x.CutoffForSize(limit)
		require.True(t, ok)
		require.Equal(t, x.BlockMetas()[0].MaxTime, c)
		x.SetCutoff(c)
		require.LessOrEqual(t, x.BlocksSize(), limit)
		require.Len(t, x.BlockMetas(), 2-i)
	}
}
