// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
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

// damagedStore has two blocks, one of them with tombstones, and what it has reported.
func damagedStore(t *testing.T) (x *tester, found *[]error) {
	found = &[]error{}
	x = openStore(t, Options{Manual: true, FreezeSpan: 1000 * time.Hour, OnDamage: func(err error) { *found = append(*found, err) }})
	x.fill("a", base, 100)
	x.freezeFlush()
	x.fill("a", base+partition, 100)
	x.freezeFlush()
	x.delete("a", base, base+60_000)
	return x, found
}

// digit is the offset of a digit of the block's min time in meta.json: with one bit changed it is another one.
func digit(t *testing.T, name string) int64 {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	at := bytes.Index(b, []byte(`"minTime": `))
	require.Positive(t, at)
	return int64(at) + int64(len(`"minTime": `)) + 3
}

// The files that a delete replaces are compared with what was written, like all others, and what has rotted gets into
// no snapshot and into no merged block.
func TestDamageOfWhatDeletesReplace(t *testing.T) {
	for _, file := range []string{"meta.json", "tombstones"} {
		t.Run(file, func(t *testing.T) {
			x, found := damagedStore(t)
			l := rate.NewLimiter(rate.Inf, scrubBuffer)
			require.NoError(t, x.scrub(l))
			name := filepath.Join(x.blocks[0].Dir(), file)
			at := int64(12)
			if file == "meta.json" {
				at = digit(t, name)
			}
			flipBit(t, name, at)
			err := x.scrub(l)
			require.ErrorIs(t, err, ErrDamaged)
			require.ErrorContains(t, err, name)

			for _, clean := range []bool{false, true} {
				*found = nil
				p, err := x.Snapshot()
				require.NoError(t, err)
				_, err = p.persist(t.Context(), t.TempDir(), clean)
				p.Release()
				require.ErrorIs(t, err, ErrDamaged)
				require.ErrorContains(t, err, file)
				require.Equal(t, []error{err}, *found)
			}
			*found = nil
			require.ErrorIs(t, x.Clean(t.Context()), ErrDamaged)
			require.Len(t, *found, 1)
			require.ErrorContains(t, (*found)[0], file)

			flipBit(t, name, at)
			require.NoError(t, x.scrub(l))
			require.NoError(t, x.Clean(t.Context()))
			require.NoError(t, x.scrub(l))
		})
	}
}

// A delete writes the files anew, from memory: then they are what they should be.
func TestScrubAfterDeletes(t *testing.T) {
	x, found := damagedStore(t)
	l := rate.NewLimiter(rate.Inf, scrubBuffer)
	for i := range int64(3) {
		x.delete("a", base+partition+i*120_000, base+partition+i*120_000)
		require.NoError(t, x.scrub(l))
		p, err := x.Snapshot()
		require.NoError(t, err)
		x.delete("a", base+600_000+i*120_000, base+600_000+i*120_000) // while it is not linked
		dir := t.TempDir()
		made, err := p.Persist(t.Context(), dir)
		require.NoError(t, err)
		p.Release()
		for _, f := range made {
			require.NoError(t, f.Check(dir, true, nil))
		}
	}
	require.Empty(t, *found)
}
