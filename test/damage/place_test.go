// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package damage_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/deucaliondb/deucalion/test/local"
)

// A place tells which byte of a file of n, whose content is b, is to be damaged.
type place func(t *testing.T, n *local.Server, b []byte) int

// share of the bytes that are not zero: files are allocated in advance.
func share(x float64) place {
	return func(_ *testing.T, _ *local.Server, b []byte) int {
		var written []int
		for i, x := range b {
			if x != 0 {
				written = append(written, i)
			}
		}
		return written[int(x*float64(len(written)-1))]
	}
}

func offset(i int) place { return func(*testing.T, *local.Server, []byte) int { return i } }

// port is the last digit of the first port in a list of addresses.
func port(t *testing.T, _ *local.Server, b []byte) int {
	t.Helper()
	i := bytes.Index(b, []byte(`"gossip":"`)) + len(`"gossip":"`)
	return i + bytes.IndexByte(b[i:], '"') - 1
}

// entries of the log, which are what raft-wal says that they are: after a header frames of a type, a length, and a payload
// that begins with the index of the entry.
func entries(t *testing.T, b []byte) map[uint64][]int {
	t.Helper()
	const header, frame, entry, index, commit = 32, 8, 1, 2, 3
	out := map[uint64][]int{}
	for at := header; at+frame <= len(b) && b[at] != 0; {
		n := int(binary.LittleEndian.Uint32(b[at+4:]))
		switch b[at] {
		case entry:
			i, _ := binary.Uvarint(b[at+frame:])
			out[i] = []int{at + frame, at + frame + n}
		case index:
		case commit:
			n = 0
		default:
			t.Fatalf("frame of type %d at %d", b[at], at)
		}
		at += frame + (n+frame-1)/frame*frame
	}
	require.NotEmpty(t, out)
	return out
}

// longest entry of the log from the newest snapshot on, or before it: a place in the middle of its data.
func longest(after bool) place {
	return func(t *testing.T, n *local.Server, b []byte) int {
		t.Helper()
		snapshot := newestSnapshot(t, n)
		from, to := 0, 0
		for i, x := range entries(t, b) {
			if i > snapshot == after && x[1]-x[0] > to-from {
				from, to = x[0], x[1]
			}
		}
		require.Greater(t, to-from, 100, "bytes of an entry")
		return (from + to) / 2
	}
}

// last entry of the log.
func last(t *testing.T, _ *local.Server, b []byte) int {
	t.Helper()
	newest := uint64(0)
	all := entries(t, b)
	for i := range all {
		newest = max(newest, i)
	}
	return (all[newest][0] + all[newest][1]) / 2
}

// term is a place in the value of the current term that a bbolt file has; older ones lie around in free pages.
func term(t *testing.T, _ *local.Server, b []byte) int {
	t.Helper()
	key := []byte("CurrentTerm")
	for _, p := range pages(t, b, "leaf") {
		if i := bytes.Index(b[p[0]:p[1]], key); i >= 0 {
			return p[0] + i + len(key) + 12 // a version, a sum, and eight bytes
		}
	}
	t.Fatal("no page has a term")
	return 0
}

// free is a place in a page that bbolt will write before it reads it.
func free(t *testing.T, _ *local.Server, b []byte) int {
	t.Helper()
	all := pages(t, b, "free")
	require.NotEmpty(t, all)
	return (all[0][0] + all[0][1]) / 2
}

// pages lists those of a type of the bbolt file b.
func pages(t *testing.T, b []byte, kind string) (out [][2]int) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.WriteFile(name, b, 0o600))
	db, err := bbolt.Open(name, 0o600, nil)
	require.NoError(t, err)
	defer db.Close()
	size := db.Info().PageSize
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		for i := 0; ; i++ {
			p, err := tx.Page(i)
			if p == nil || err != nil {
				return err
			}
			if p.Type == kind && (i+1)*size <= len(b) {
				out = append(out, [2]int{i * size, (i + 1) * size})
			}
		}
	}))
	return out
}
