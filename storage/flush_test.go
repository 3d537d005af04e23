// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

// A disk that is full of what failed flushes left could not be flushed to any more.
func TestFailedFlushLeavesNothing(t *testing.T) {
	writes := 0
	x := openStore(t, Options{Manual: true, FreezeSpan: 1000 * time.Hour, afterWrite: func(err error) error {
		if writes++; writes%2 == 0 && writes < 10 {
			return syscall.ENOSPC
		}
		return err
	}})
	x.fill("a", base, 10)
	x.fill("a", base+partition, 10)
	want := x.all()
	x.freeze()
	for range 4 {
		_, err := x.FlushOne()
		require.ErrorIs(t, err, syscall.ENOSPC)
		left, err := filepath.Glob(filepath.Join(x.frozen[0].dir, "raw-*"))
		require.NoError(t, err)
		require.Empty(t, left)
	}
	x.flush()
	require.Len(t, x.BlockMetas(), 2)
	require.Equal(t, want, x.all())
	x.noLeftovers()
}

// What rots before it is installed is still in memory, and is written again.
func TestFlushOfDamagedBlock(t *testing.T) {
	for _, file := range []string{theIndex, "meta.json"} {
		x := manual(t)
		x.fill("a", base, 10)
		x.fill("a", base+partition, 10)
		want := x.all()
		x.freeze()
		m := x.frozen[0]
		raw, err := x.writeRaw(m) // as a snapshot does
		require.NoError(t, err)
		name := filepath.Join(raw[1].dir, file)
		fi, err := os.Stat(name)
		require.NoError(t, err)
		flipBit(t, name, fi.Size()-1)
		_, err = x.FlushOne()
		require.Error(t, err, file)
		x.flush()
		require.Equal(t, want, x.all())
		require.NoError(t, x.scrub(rate.NewLimiter(rate.Inf, scrubBuffer)))
		x.noLeftovers()
	}
}
