// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/deucaliondb/deucalion/internal/filetest"
)

// The last one to let go of a memtable does so on a full disk. Its head would write chunks then. The room that it had is
// given back, and the blocks that were made of it stay as they are.
func TestReleaseOnFullDisk(t *testing.T) {
	for name, tc := range map[string]struct {
		late int   // samples out of order: one chunk has 32
		room int64 // bytes of the head's files
	}{
		"no file yet": {1, 0},
		"a file":      {40, 128 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			filetest.Mount(t, dir, "size=16m")
			x := openStore(t, Options{Dir: filepath.Join(dir, "live"), Manual: true, FreezeSpan: 1000 * time.Hour})
			for i := range 40_000 {
				x.add(fmt.Sprint("s", i%40), base+int64(i/40)*1000, math.Sqrt(float64(i)))
			}
			for i := range tc.late {
				x.add("s1", base+int64(i)*1000+1, 1)
			}
			x.freeze()
			m := x.frozen[0]
			m.acquire()
			x.flush()
			want := x.all()
			filler := filepath.Join(dir, "filler")
			filetest.Fill(t, filler)
			before, err := freeBytes(dir)
			require.NoError(t, err)
			m.release()
			require.NoDirExists(t, m.dir)
			after, err := freeBytes(dir)
			require.NoError(t, err)
			require.GreaterOrEqual(t, after-before, tc.room)
			require.NoError(t, os.Remove(filler))
			require.Equal(t, want, x.all())
			require.NoError(t, x.scrub(rate.NewLimiter(rate.Inf, scrubBuffer)))
		})
	}
}

func TestCheckRoom(t *testing.T) {
	dir := t.TempDir()
	filetest.Mount(t, dir, "size=16m")
	x := openStore(t, Options{Dir: filepath.Join(dir, "live"), Manual: true})
	float := ChunkBytes(Sample{V: 1})
	require.Greater(t, ChunkBytes(Sample{H: &histogram.Histogram{PositiveBuckets: []int64{1, 2}}}), float)
	require.NoError(t, x.CheckRoom(float))
	require.ErrorIs(t, x.CheckRoom(16<<20), syscall.ENOSPC)
	filetest.Fill(t, filepath.Join(dir, "filler"))
	require.ErrorIs(t, x.CheckRoom(float), syscall.ENOSPC)
}
