// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

func verifyQuick(dir string) error { return fsm.VerifySnapshot(dir, false) }

func testStore(t *testing.T, dir string) *SnapshotStore {
	s, err := openSnapshots(dir, discard, verifyQuick)
	require.NoError(t, err)
	s.attach("a", nil)
	return s
}

func create(t *testing.T, s *SnapshotStore, index uint64) *snapshotSink {
	k, err := s.Create(1, index, 2, raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "b:1"}}}, 1, nil)
	require.NoError(t, err)
	return k.(*snapshotSink)
}

var testBlock = ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAV")

var testFiles = map[string]string{
	"meta.json":               "{}",
	"empty":                   "",
	"chunks/000001":           strings.Repeat("c", 300_000),
	strings.Repeat("long", 5): "a name",
}

func testFile(name, content string) storage.File {
	return storage.File{Path: name, Size: int64(len(content)), CRC32C: crc32.Checksum([]byte(content), castagnoli)}
}

func testManifest() fsm.Manifest {
	b := storage.BlockFiles{ULID: testBlock, MaxTime: 10, Pos: 3}
	for name, content := range testFiles {
		b.Files = append(b.Files, testFile(name, content))
	}
	return fsm.Manifest{Version: 2, Index: 7, Term: 2, State: testFile("state", "the state"), Blocks: []storage.BlockFiles{b}}
}

func manifestBytes(t testing.TB, m fsm.Manifest) []byte {
	b, err := json.Marshal(m)
	require.NoError(t, err)
	return appendSum(append(b, '\n'), b)
}

// writeFiles fills dir as fsm.Snapshot.Persist does.
func writeFiles(t *testing.T, dir string) {
	write := func(name string, content []byte) {
		p := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, content, 0o644))
	}
	for name, content := range testFiles {
		write("blocks/"+testBlock.String()+"/"+name, []byte(content))
	}
	write("state", []byte("the state"))
	write(fsm.ManifestName, manifestBytes(t, testManifest()))
}

// local makes a snapshot as fsmSnapshot.Persist and Raft do.
func local(t *testing.T, s *SnapshotStore, index uint64) string {
	k := create(t, s, index)
	writeFiles(t, k.dataDir())
	require.NoError(t, k.Close())
	require.NoError(t, k.Close(), "Raft closes twice")
	return k.ID()
}

// stream reads what Raft sends, and holds it against the size that Raft announces.
func stream(t *testing.T, s *SnapshotStore, id string) []byte {
	meta, r, err := s.Open(id)
	require.NoError(t, err)
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.Equal(t, meta.Size, int64(len(b)), "the size is exact")
	list, err := s.List()
	require.NoError(t, err)
	for _, m := range list {
		if m.ID == id {
			require.Equal(t, meta.Size, m.Size)
		}
	}
	return b
}

// receive feeds a stream as InstallSnapshot does.
func receive(t *testing.T, s *SnapshotStore, index uint64, b []byte) error {
	k := create(t, s, index)
	for len(b) > 0 {
		n, err := k.Write(b[:min(len(b), 1000)])
		if err != nil {
			require.NoError(t, k.Cancel())
			return err
		}
		b = b[n:]
	}
	return k.Close()
}

func TestSnapshotOfferAndInstall(t *testing.T) {
	from, to := testStore(t, t.TempDir()), testStore(t, t.TempDir())
	id := local(t, from, 7)
	sent := stream(t, from, id)

	require.ErrorIs(t, receive(t, to, 7, sent), errCatchingUp)
	staged := filepath.Join(to.dir, "fetched")
	here := false
	to.attach("b", func(o *offer, dst string) error {
		require.Equal(t, id, o.Snapshot)
		require.Equal(t, "a", o.Node)
		require.Equal(t, testManifest().State, o.manifest.State)
		if !here {
			return errCatchingUp
		}
		require.NoError(t, os.Remove(dst))
		return os.Rename(staged, dst)
	})
	require.ErrorIs(t, receive(t, to, 7, sent), errCatchingUp)
	_, ok := to.Latest()
	require.False(t, ok)
	here = true
	require.NoError(t, os.Mkdir(staged, 0o755))
	writeFiles(t, staged)
	require.NoError(t, receive(t, to, 7, sent))

	dir, ok := to.Latest()
	require.True(t, ok)
	require.NoError(t, fsm.VerifySnapshot(dir, true))
	list, err := to.List()
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "a", string(list[0].Configuration.Servers[0].ID))

	// What was received can be opened again, and offered to others.
	again := testStore(t, filepath.Dir(to.dir))
	again.attach("a node with a longer name", nil)
	o, err := parseOffer(stream(t, again, list[0].ID))
	require.Error(t, err, "spaces in a node id")
	require.Nil(t, o)
	again.attach("longer-name", nil)
	o, err = parseOffer(stream(t, again, list[0].ID))
	require.NoError(t, err)
	require.Equal(t, "longer-name", o.Node)
}

func TestSnapshotReapWaitsForReaders(t *testing.T) {
	s := testStore(t, t.TempDir())
	first := local(t, s, 1)
	_, r, err := s.Open(first)
	require.NoError(t, err)
	_, r2, err := s.Open(first)
	require.NoError(t, err)
	for i := uint64(2); i < 5; i++ {
		local(t, s, i)
	}
	require.Equal(t, uint64(3), s.oldest())
	list, err := s.List()
	require.NoError(t, err)
	require.Len(t, list, retainSnapshots)
	require.DirExists(t, filepath.Join(s.dir, first))
	_, err = io.Copy(io.Discard, r)
	require.NoError(t, err, "it can be read to the end")
	require.NoError(t, r.Close())
	require.NoError(t, r.Close(), "twice")
	require.DirExists(t, filepath.Join(s.dir, first), "the other reader has it")
	_, _, err = s.Open(first)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, r2.Close())
	require.NoDirExists(t, filepath.Join(s.dir, first))
	es, err := os.ReadDir(s.dir)
	require.NoError(t, err)
	require.Len(t, es, retainSnapshots)
}

func TestSnapshotCancelAndLeftovers(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	k := create(t, s, 1)
	writeFiles(t, k.dataDir())
	require.NoError(t, k.Cancel())
	require.Error(t, k.Close())
	k = create(t, s, 2)
	_, err := k.Write([]byte("the beginning of an offer"))
	require.NoError(t, err)
	require.NoError(t, k.Cancel())
	k = create(t, s, 3) // the process dies here
	writeFiles(t, k.dataDir())
	_, ok := s.Latest()
	require.False(t, ok)
	require.Error(t, create(t, s, 4).Close(), "a snapshot without files")
	s = testStore(t, dir)
	es, err := os.ReadDir(s.dir)
	require.NoError(t, err)
	require.Empty(t, es)
}

func TestSnapshotDamagedIsSetAside(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"meta": func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, metaName))
			require.NoError(t, err)
			b[5] ^= 4
			require.NoError(t, os.WriteFile(filepath.Join(dir, metaName), b, 0o644))
		},
		"no meta": func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, metaName))) },
		"no manifest": func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, dataName, fsm.ManifestName)))
		},
		"missing": func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, dataName, "state"))) },
		"truncated": func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, dataName, "state"), 3))
		},
		"fsm": func(*testing.T, string) {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := testStore(t, dir)
			good, bad := local(t, s, 5), local(t, s, 6)
			damage(t, filepath.Join(s.dir, bad))
			s, err := openSnapshots(dir, discard, func(d string) error {
				if name == "fsm" && strings.Contains(d, bad) {
					return errors.New("a block is short")
				}
				return verifyQuick(d)
			})
			require.NoError(t, err)
			latest, ok := s.Latest()
			require.True(t, ok)
			require.Contains(t, latest, good)
			require.DirExists(t, filepath.Join(s.dir, bad+damagedSuffix))
			require.Equal(t, uint64(6), s.damaged)
			require.Zero(t, s.oldest(), "one is left: the whole log is kept")
		})
	}
}

// A flipped bit in a chunk segment is found only when all bytes are read, which the file verify-all asks for, once.
func TestVerifyAll(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	good, bad := local(t, s, 5), local(t, s, 6)
	chunks := filepath.Join(s.dataDir(bad), "blocks", testBlock.String(), "chunks", "000001")
	b, err := os.ReadFile(chunks)
	require.NoError(t, err)
	b[1000] ^= 1
	require.NoError(t, os.WriteFile(chunks, b, 0o644))
	mark := filepath.Join(dir, verifyAllName)

	s, err = OpenSnapshots(dir, discard)
	require.NoError(t, err)
	require.Equal(t, bad, s.newestID())
	require.NoError(t, os.WriteFile(mark, nil, 0o644))
	s, err = OpenSnapshots(dir, discard)
	require.NoError(t, err)
	require.Equal(t, good, s.newestID())
	require.NoFileExists(t, mark)
}
