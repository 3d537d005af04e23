// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

// flipBit changes a file in place, as a failing disk does.
func flipBit(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	require.NoError(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func TestScrub(t *testing.T) {
	x := manual(t)
	x.fill("a", base, 100)
	x.freezeFlush()
	x.fill("a", base+partition, 100)
	x.freezeFlush()
	x.delete("a", base, base)
	l := rate.NewLimiter(rate.Inf, scrubBuffer)
	require.NoError(t, x.scrub(l))
	for _, file := range []string{"index", "chunks/000001"} {
		name := filepath.Join(x.blocks[1].Dir(), file)
		fi, err := os.Stat(name)
		require.NoError(t, err)
		flipBit(t, name, fi.Size()/2)
		err = x.scrub(l)
		require.ErrorIs(t, err, ErrDamaged)
		require.ErrorContains(t, err, name)
		flipBit(t, name, fi.Size()/2)
		require.NoError(t, x.scrub(l))
	}
}

// A read that meets damage is an error, and has the node look for it at once.
func TestScrubAfterRead(t *testing.T) {
	found := make(chan error, 1)
	x := openStore(t, Options{ScrubInterval: time.Hour, OnDamage: func(err error) { found <- err }})
	x.fill("a", base, 100)
	x.freeze()
	require.Eventually(t, func() bool { return len(x.BlockMetas()) == 1 }, deadline, time.Millisecond)
	name := filepath.Join(x.blocks[0].Dir(), "chunks/000001")
	fi, err := os.Stat(name)
	require.NoError(t, err)
	flipBit(t, name, fi.Size()/2)

	q, err := x.Querier(base, base+partition)
	require.NoError(t, err)
	defer q.Close()
	ss := q.Select(t.Context(), true, nil, named("a")...)
	require.True(t, ss.Next())
	it := ss.At().Iterator(nil)
	for it.Next() != chunkenc.ValNone {
	}
	require.ErrorContains(t, it.Err(), "checksum mismatch")
	select {
	case err := <-found:
		require.ErrorIs(t, err, ErrDamaged)
		require.ErrorContains(t, err, name)
	case <-time.After(deadline):
		t.Fatal("the damage was not looked for")
	}
}
