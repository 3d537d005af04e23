// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
)

func makeOffer(t testing.TB, node, id string, m fsm.Manifest) []byte {
	b := manifestBytes(t, m)
	meta := &snapshotMeta{Raft: raft.SnapshotMeta{ID: id, Index: 7, Term: 2}, manifest: int64(len(b))}
	out, err := encodeOffer(node, meta, b)
	require.NoError(t, err)
	require.Len(t, out, int(offerSize(node, meta)))
	return out
}

func TestOfferIsChecked(t *testing.T) {
	good := makeOffer(t, "a", "2-7-100", testManifest())
	_, err := parseOffer(good)
	require.NoError(t, err)

	refused := func(b []byte, why string) {
		t.Helper()
		to := testStore(t, t.TempDir())
		to.attach("b", func(*offer, string) error { t.Error("a bad offer came through: " + why); return nil })
		err := receive(t, to, 7, b)
		require.Error(t, err, why)
		es, err := os.ReadDir(to.dir)
		require.NoError(t, err)
		require.Empty(t, es, "nothing is left of it")
	}
	refused(nil, "empty")
	refused(good[:len(good)/2], "half")
	refused(append(bytes.Clone(good), '\n'), "a byte too many")
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		b := bytes.Clone(good)
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		refused(b, "a flipped bit")
	}
	refused(makeOffer(t, "../a", "2-7-100", testManifest()), "node id")
	for _, id := range []string{"../../x", "2-7-100.tmp", "02-7-100", "3-7-100", "2-8-100", "2-7", ""} {
		refused(makeOffer(t, "a", id, testManifest()), "snapshot id "+id)
	}
	for _, name := range []string{"../x", "/etc/x", "a/../../x", "./x", "a//b", "", ".", "meta.json", "x.part"} {
		m := testManifest()
		m.Blocks[0].Files = append(m.Blocks[0].Files, testFile(name, "x"))
		refused(makeOffer(t, "a", "2-7-100", m), "file "+name)
	}
	for _, name := range []string{"../state", "manifest.json", "blocks", ""} {
		m := testManifest()
		m.State.Path = name
		refused(makeOffer(t, "a", "2-7-100", m), "state file "+name)
	}
	m := testManifest()
	m.Blocks = append(m.Blocks, m.Blocks[0])
	refused(makeOffer(t, "a", "2-7-100", m), "a block twice")
	m = testManifest()
	m.Blocks[0].Files[0].Size = -1
	refused(makeOffer(t, "a", "2-7-100", m), "size")
	m = testManifest()
	m.Version = 99
	refused(makeOffer(t, "a", "2-7-100", m), "version")

	to := testStore(t, t.TempDir())
	require.ErrorContains(t, receive(t, to, 8, good), "index 8", "Raft installs another one")
	k := create(t, to, 7)
	_, err = k.Write(make([]byte, maxOffer+1))
	require.ErrorIs(t, err, errBadOffer)
}

func FuzzParseOffer(f *testing.F) {
	good := makeOffer(f, "a", "2-7-100", testManifest())
	f.Add(good[:len(good)-sumLength])
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		// The checksum is made right, or no input would get past it.
		o, err := parseOffer(appendSum(bytes.Clone(body), body))
		if err != nil {
			require.ErrorIs(t, err, errBadOffer)
			return
		}
		require.Equal(t, "state", o.manifest.State.Path)
		for _, b := range o.manifest.Blocks {
			for _, x := range b.Files {
				require.True(t, filepath.IsLocal(remotePath(b, x)))
			}
		}
	})
}
