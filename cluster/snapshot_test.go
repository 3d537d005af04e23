// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func noVerify(string) error { return nil }

func testStore(t *testing.T, dir string) *SnapshotStore {
	s, err := openSnapshots(dir, discard, noVerify)
	require.NoError(t, err)
	return s
}

func create(t *testing.T, s *SnapshotStore, index uint64) *snapshotSink {
	k, err := s.Create(1, index, 2, raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "b:1"}}}, 1, nil)
	require.NoError(t, err)
	return k.(*snapshotSink)
}

var testFiles = map[string]string{
	"state":                      "the state",
	"empty":                      "",
	"blocks/01ABC/chunks/000001": strings.Repeat("c", 3*copyBuffer+17),
	"blocks/01ABC/" + strings.Repeat("long", 50): "a name that does not fit into a plain header",
}

func writeFiles(t *testing.T, dir string) {
	for name, content := range testFiles {
		p := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(content), 0o644))
	}
}

// local makes a snapshot as fsmSnapshot.Persist and Raft do.
func local(t *testing.T, s *SnapshotStore, index uint64) string {
	k := create(t, s, index)
	writeFiles(t, k.dataDir())
	require.NoError(t, k.Close())
	require.NoError(t, k.Close(), "Raft closes twice")
	return k.ID()
}

func TestSnapshotRoundTrip(t *testing.T) {
	from, to := testStore(t, t.TempDir()), testStore(t, t.TempDir())
	id := local(t, from, 7)
	meta, r, err := from.Open(id)
	require.NoError(t, err)
	k := create(t, to, 7)
	n, err := io.Copy(k, r)
	require.NoError(t, err)
	require.Equal(t, meta.Size, n, "the size is exact")
	require.NoError(t, r.Close())
	require.NoError(t, k.Close())

	dir, ok := to.Latest()
	require.True(t, ok)
	for name, content := range testFiles {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, content, string(b))
	}
	list, err := to.List()
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, meta.Size, list[0].Size)
	require.Equal(t, meta.Configuration, list[0].Configuration)

	// What was received can be opened again, and sent on.
	again := testStore(t, filepath.Dir(to.dir))
	_, r, err = again.Open(list[0].ID)
	require.NoError(t, err)
	n, err = io.Copy(io.Discard, r)
	require.NoError(t, err)
	require.Equal(t, meta.Size, n)
	require.NoError(t, r.Close())
}

func stream(t *testing.T, s *SnapshotStore, id string) []byte {
	_, r, err := s.Open(id)
	require.NoError(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	return b
}

// receive feeds a stream as InstallSnapshot does.
func receive(t *testing.T, s *SnapshotStore, b []byte) error {
	k := create(t, s, 9)
	if _, err := io.Copy(k, bytes.NewReader(b)); err != nil {
		require.NoError(t, k.Cancel())
		return err
	}
	return k.Close()
}

func TestSnapshotStreamIsChecked(t *testing.T) {
	from, to := testStore(t, t.TempDir()), testStore(t, t.TempDir())
	good := stream(t, from, local(t, from, 7))
	require.NoError(t, receive(t, testStore(t, t.TempDir()), good))

	at := bytes.Index(good, []byte("the state"))
	flipped := bytes.Clone(good)
	flipped[at] ^= 1
	require.ErrorContains(t, receive(t, to, flipped), "checksum")
	require.Error(t, receive(t, to, good[:len(good)/2]))
	require.Error(t, receive(t, to, good[:0]))
	require.Error(t, receive(t, to, append(bytes.Clone(good), 1)), "a byte too many")
	for _, name := range []string{"../x", "/etc/x", "a/../../x", "./x", "a//b", ""} {
		require.Error(t, receive(t, to, hostile(t, name, tar.TypeReg)), name)
	}
	for _, typ := range []byte{tar.TypeSymlink, tar.TypeLink, tar.TypeDir, tar.TypeChar} {
		require.Error(t, receive(t, to, hostile(t, "x", typ)))
	}
	require.Error(t, receive(t, to, append(hostile(t, "x", tar.TypeReg), hostile(t, "x", tar.TypeReg)...)), "twice")
	es, err := os.ReadDir(to.dir)
	require.NoError(t, err)
	require.Empty(t, es, "nothing is left of any of them")
}

func hostile(t *testing.T, name string, typ byte) []byte {
	var b bytes.Buffer
	require.NoError(t, tar.NewWriter(&b).WriteHeader(&tar.Header{Name: name, Typeflag: typ, Linkname: "/etc/passwd"}))
	return b.Bytes()
}

// A file that rots after it was received is not sent on.
func TestSnapshotRotIsNotSpread(t *testing.T) {
	from, to := testStore(t, t.TempDir()), testStore(t, t.TempDir())
	require.NoError(t, receive(t, to, stream(t, from, local(t, from, 9))))
	dir, _ := to.Latest()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "state"), []byte("THE STATE"), 0o644))
	_, r, err := to.Open(filepath.Base(filepath.Dir(dir)))
	require.NoError(t, err)
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	require.ErrorContains(t, err, "rotted")
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
	_, err := k.Write([]byte("not a tar"))
	require.NoError(t, err)
	require.NoError(t, k.Cancel())
	k = create(t, s, 3) // the process dies here
	writeFiles(t, k.dataDir())
	_, ok := s.Latest()
	require.False(t, ok)
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
				return nil
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
