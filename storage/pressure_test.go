// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// waiting takes log output, and is sent to when Freeze has to wait.
type waiting chan struct{}

func (w waiting) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("Writes wait")) {
		w <- struct{}{}
	}
	return len(p), nil
}

func (w waiting) await(t *testing.T) {
	select {
	case <-w:
	case <-time.After(deadline):
		t.Fatal("the applier does not wait")
	}
}

// Freeze waits when too many memtables are unflushed, and goes on when one is.
func TestBackpressure(t *testing.T) {
	waits := make(waiting, 1)
	x := openStore(t, Options{FreezeSamples: 1, FreezeSpan: 1000 * time.Hour, Logger: slog.New(slog.NewTextHandler(waits, nil))})
	// A file where the flusher wants its directory: each flush fails.
	x.mu.Lock()
	good := x.blocksDir
	x.blocksDir = filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(x.blocksDir, nil, 0o666))
	x.mu.Unlock()
	for i := range int64(maxFrozen) {
		x.add("a", base+i*60_000, float64(i))
	}
	require.Equal(t, maxFrozen, x.frozenCount())
	done := make(chan error, 1)
	go func() { done <- x.tryAdd("a", base+int64(maxFrozen)*60_000, 1) }()
	eventually(t, "a failed flush", func() bool { return testutil.ToFloat64(x.m.flushFailures) > 0 })
	waits.await(t)
	require.Empty(t, done, "the applier waits")
	require.Equal(t, maxFrozen+1, strings.Count(x.all(), "="), "queries go on")
	x.mu.Lock()
	x.blocksDir = good
	x.mu.Unlock()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(deadline):
		t.Fatal("the applier waits for ever")
	}
	eventually(t, "all is flushed", func() bool { return x.frozenCount() == 0 })
	require.Equal(t, maxFrozen+1, strings.Count(x.all(), "="))
	require.Positive(t, testutil.ToFloat64(x.m.stallSeconds))
}

// Close ends a wait for the flusher.
func TestCloseEndsBackpressure(t *testing.T) {
	waits := make(waiting, 1)
	x := openStore(t, Options{FreezeSamples: 1, FreezeSpan: 1000 * time.Hour, Logger: slog.New(slog.NewTextHandler(waits, nil))})
	x.mu.Lock()
	x.blocksDir = filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(x.blocksDir, nil, 0o666))
	x.mu.Unlock()
	for i := range int64(maxFrozen) {
		x.add("a", base+i*60_000, float64(i))
	}
	done := make(chan error, 1)
	go func() { done <- x.tryAdd("a", base+int64(maxFrozen)*60_000, 1) }()
	eventually(t, "a failed flush", func() bool { return testutil.ToFloat64(x.m.flushFailures) > 0 })
	waits.await(t)
	require.NoError(t, x.Close())
	require.ErrorIs(t, <-done, ErrClosed)
}

// Close at any moment of flushes, merges and cleans; goleak looks at the rest.
func TestCloseWhileWorking(t *testing.T) {
	for i := range 15 {
		x := openStore(t, Options{FreezeSamples: 30})
		for k := range int64(100 + 20*i) {
			x.add("a", base+k*partition/10, 1)
		}
		x.delete("a", base, base+partition)
		cleaned := make(chan error, 1)
		go func() { cleaned <- x.Clean(t.Context()) }()
		require.NoError(t, x.Close())
		select {
		case <-cleaned:
		case <-time.After(deadline):
			t.Fatal("Clean outlives Close")
		}
	}
}
