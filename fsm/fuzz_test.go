// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

// seeds adds the payloads of golden entries whose name starts with prefix.
func seeds(f *testing.F, prefix string, cut func([]byte) []byte) {
	f.Helper()
	files, err := os.ReadDir(goldenDir)
	require.NoError(f, err)
	for _, x := range files {
		if n := strings.TrimSuffix(x.Name(), ".hex"); strings.HasPrefix(n, prefix) && !strings.HasPrefix(n, "state") {
			f.Add(cut(readGolden(f, n)))
		}
	}
}

func payloadOf(b []byte) []byte { return b[entryHead : len(b)-entryTail] }

// FuzzAppend decodes payloads of append entries: never a panic, and what can be
// decoded is encoded to something that means the same.
func FuzzAppend(f *testing.F) {
	seeds(f, "append", payloadOf)
	for _, p := range hostileAppends() {
		f.Add(p)
	}
	var e, again appendEntry
	f.Fuzz(func(t *testing.T, p []byte) {
		if err := e.decode(p); err != nil {
			require.ErrorIs(t, err, ErrFormat)
			return
		}
		_, q, err := open(e.encode())
		require.NoError(t, err)
		require.NoError(t, again.decode(q))
		require.Equal(t, entryText(&e), entryText(&again))
	})
}

// FuzzEntry applies whole entries, with a good checksum, after some good ones.
// The state machine may stop; it must not panic, nor stop without a reason, and
// what it took must be readable.
func FuzzEntry(f *testing.F) {
	seeds(f, "", func(b []byte) []byte { return b[:len(b)-entryTail] })
	for _, p := range hostileAppends() {
		f.Add(append([]byte{entryVersion, byte(kindAppend)}, p...))
	}
	good := [][]byte{readGolden(f, "settings"), readGolden(f, "append-fresh")}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > 1 && (kind(body[1]) == kindUserSnapshot || kind(body[1]) == kindDigest) {
			return // needs no state: see FuzzSnapshot and FuzzDigest
		}
		m, err := Open(Options{Dir: t.TempDir(), Storage: storage.Options{Manual: true}}, "")
		require.NoError(t, err)
		defer m.Close()
		for i, e := range append(good, seal(append([]byte(nil), body...)), readGolden(t, "append"), EncodeNoop()) {
			r := m.Apply(uint64(i+1), 1, e)
			m.Publish(uint64(i+1), 1)
			require.Equal(t, m.Err() != nil, r.Err != "", "%s: %v", r.Err, m.Err())
		}
		dump(t, m)
	})
}

// FuzzSnapshot decodes the payload of a user snapshot and looks at its name,
// which becomes a file name.
func FuzzSnapshot(f *testing.F) {
	seeds(f, "snapshot", payloadOf)
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := decodeUserSnapshot(p)
		if err != nil {
			require.ErrorIs(t, err, ErrFormat)
			return
		}
		if validName(s.Name) {
			require.NotContains(t, s.Name, "/")
			require.NotContains(t, []string{".", "..", ""}, s.Name)
		}
		again, err := decodeUserSnapshot(payloadOf(EncodeUserSnapshot(s)))
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}

func FuzzDelete(f *testing.F) {
	seeds(f, "delete", payloadOf)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}) // a string of 2^64-1 bytes
	f.Fuzz(func(t *testing.T, p []byte) {
		d, err := decodeDelete(p)
		if err != nil {
			require.ErrorIs(t, err, ErrFormat)
			return
		}
		again, err := decodeDelete(payloadOf(EncodeDelete(d)))
		require.NoError(t, err)
		require.Equal(t, selectorText(d), selectorText(again))
		d.Selectors, again.Selectors = nil, nil
		require.Equal(t, d, again)
	})
}

func FuzzResult(f *testing.F) {
	seeds(f, "result", func(b []byte) []byte { return b })
	f.Add([]byte{resultVersion, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again Result
		if r.UnmarshalBinary(b) != nil {
			return
		}
		c, err := r.MarshalBinary()
		require.NoError(t, err)
		require.NoError(t, again.UnmarshalBinary(c))
		require.Equal(t, r, again)
	})
}

func FuzzDigest(f *testing.F) {
	seeds(f, "digest", payloadOf)
	f.Add([]byte{0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}) // 2^64-1 ranges
	f.Fuzz(func(t *testing.T, p []byte) {
		d, err := decodeDigest(p)
		if err != nil {
			require.ErrorIs(t, err, ErrFormat)
			return
		}
		require.LessOrEqual(t, len(d.Ranges), MaxDigestRanges)
		again, err := decodeDigest(payloadOf(EncodeDigest(d)))
		require.NoError(t, err)
		require.Equal(t, d, again)
	})
}

func FuzzShipped(f *testing.F) {
	seeds(f, "shipped", payloadOf)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})    // 2^64-1 names
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}) // 2^64-1 positions
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := decodeShipped(p)
		if err != nil {
			require.ErrorIs(t, err, ErrFormat)
			return
		}
		require.LessOrEqual(t, len(s.Positions), MaxRemotes)
		require.LessOrEqual(t, len(s.Forget), MaxRemotes)
		again, err := decodeShipped(payloadOf(EncodeShipped(s)))
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}

// FuzzImport decodes the payload of an import, whose files become names on the disk.
func FuzzImport(f *testing.F) {
	seeds(f, "import", payloadOf)
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01} // 2^64-1 blocks
	f.Add(append(appendString(nil, "00000000000000aa"), huge...))
	f.Fuzz(func(t *testing.T, p []byte) {
		x, err := decodeImport(p)
		if err != nil {
			require.ErrorIs(t, err, ErrFormat)
			return
		}
		for _, b := range x.Blocks {
			for _, n := range b.Files {
				require.True(t, filepath.IsLocal(filepath.Join(x.ID, b.ULID.String(), n.Path)))
				require.NotContains(t, n.Path, "..")
			}
		}
		again, err := decodeImport(payloadOf(EncodeImport(x)))
		require.NoError(t, err)
		require.Equal(t, x, again)
	})
}
