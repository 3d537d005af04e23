// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func openTestStores(t *testing.T, dir, kind string) (*stores, error) {
	s, err := openStores(storeOptions{
		dir: dir, kind: kind, segmentBytes: 64 << 10, writeTimeout: time.Minute, keepFrom: func() uint64 { return 0 },
		logger: discard, metrics: testMetrics(), onFatal: func(err error) { t.Errorf("fatal: %v", err) },
	})
	if err == nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

func fillStores(t *testing.T, s *stores, entries uint64) {
	require.NoError(t, s.stable.SetUint64(keyCurrentTerm, 1))
	require.NoError(t, s.stable.SetUint64(keyLastVoteTerm, 1))
	require.NoError(t, s.stable.Set(keyLastVoteCand, []byte("n1@127.0.0.1:1")))
	for i := uint64(1); i <= entries; i++ {
		require.NoError(t, s.log.StoreLog(entry(i)))
	}
}

// verify is what a start does after opening the stores in dir/raft.
func (s *stores) verify(dir string) error {
	n := &Node{cfg: Config{Dir: dir}, snapshots: &SnapshotStore{}, logger: discard, amnesia: &amnesia{}}
	return n.verifyStores(s)
}

// One flipped bit anywhere in log, meta data or vote is found at the next start, or changes nothing.
func TestEveryFlippedBitIsFound(t *testing.T) {
	t.Parallel()
	const entries = 40
	for _, kind := range []string{LogStoreWAL, LogStoreBoltDB} {
		whole := t.TempDir()
		s, err := openTestStores(t, whole, kind)
		require.NoError(t, err)
		fillStores(t, s, entries)
		require.NoError(t, s.Close())
		var files []string
		require.NoError(t, filepath.WalkDir(whole, func(p string, d os.DirEntry, err error) error {
			if !d.IsDir() {
				files = append(files, p)
			}
			return err
		}))
		for _, file := range files {
			rel, _ := filepath.Rel(whole, file)
			t.Run(kind+"/"+rel, func(t *testing.T) {
				good, err := os.ReadFile(file)
				require.NoError(t, err)
				var places []int // where something is written
				for i, c := range good {
					if c != 0 {
						places = append(places, i)
					}
				}
				step := 1 + len(places)/600
				if testing.Short() {
					step *= 8
				}
				found := 0
				for i := 0; i < len(places); i += step {
					if flipped(t, whole, rel, kind, good, places[i], byte(1)<<(i%8), entries) {
						found++
					}
				}
				t.Logf("%d bytes, %d flips found", len(good), found)
			})
		}
	}
}

// flipped opens a copy with one flipped bit and returns whether that was found out; if not, all must be as before.
func flipped(t *testing.T, whole, rel, kind string, good []byte, at int, bit byte, entries uint64) bool {
	dir := filepath.Join(t.TempDir(), "raft")
	require.NoError(t, os.CopyFS(dir, os.DirFS(whole)))
	bad := append([]byte(nil), good...)
	bad[at] ^= bit
	require.NoError(t, os.WriteFile(filepath.Join(dir, rel), bad, 0o644))
	defer os.RemoveAll(dir)
	name := fmt.Sprintf("%s at %d", rel, at)
	s, err := openTestStores(t, dir, kind)
	if err == nil {
		defer s.Close()
		err = s.verify(filepath.Dir(dir))
	}
	if err != nil {
		require.ErrorIs(t, err, ErrDamaged, name)
		require.ErrorContains(t, err, dir, name)
		return true
	}
	last, err := s.log.LastIndex()
	require.NoError(t, err, name)
	if rel == endFile {
		return false
	}
	require.Equal(t, entries, last, name)
	for i := uint64(1); i <= entries; i++ {
		var l raft.Log
		require.NoError(t, s.log.GetLog(i, &l), name)
		want := entry(i)
		require.Equal(t, want.Data, l.Data, name)
		require.Equal(t, want.Term, l.Term, name)
		require.Equal(t, want.Type, l.Type, name)
	}
	for _, key := range [][]byte{keyCurrentTerm, keyLastVoteTerm} {
		term, err := s.stable.GetUint64(key)
		require.NoError(t, err, name)
		require.EqualValues(t, 1, term, name)
	}
	vote, err := s.stable.Get(keyLastVoteCand)
	require.NoError(t, err, name)
	require.Equal(t, "n1@127.0.0.1:1", string(vote), name)
	require.NoError(t, s.log.StoreLog(entry(entries+1)), name)
	return false
}

// The log may be cut at its end by Raft, and by nobody else.
func TestLogEnd(t *testing.T) {
	for _, kind := range []string{LogStoreWAL, LogStoreBoltDB} {
		dir := t.TempDir()
		reopen := func() *stores {
			s, err := openTestStores(t, dir, kind)
			require.NoError(t, err)
			return s
		}
		s := reopen()
		fillStores(t, s, 20)
		require.NoError(t, s.log.DeleteRange(15, 20)) // a conflict
		require.NoError(t, s.Close())
		s = reopen()
		require.NoError(t, s.verify(filepath.Dir(dir)))
		mark, _ := s.base.end.get()
		require.Equal(t, uint64(14), mark)
		require.NoError(t, s.log.StoreLog(&raft.Log{Index: 15, Term: 1, Data: []byte("x")}))
		require.NoError(t, s.Close())

		s = reopen()
		require.NoError(t, s.base.logStore.DeleteRange(15, 15)) // behind its back
		require.NoError(t, s.Close())
		s = reopen()
		err := s.verify(filepath.Dir(dir))
		require.ErrorIs(t, err, ErrDamaged)
		require.ErrorContains(t, err, "entry 15 was durable")

		// An installed snapshot replaces it all.
		require.NoError(t, s.log.DeleteRange(1, 14))
		require.NoError(t, s.verify(filepath.Dir(dir)))
		require.NoError(t, s.Close())
		s = reopen()
		require.NoError(t, s.verify(filepath.Dir(dir)))
		require.NoError(t, s.Close())
	}
}

// An entry keeps the extensions that it came with, and Raft's own copy does not change.
func TestEntryChecksum(t *testing.T) {
	s, err := openTestStores(t, t.TempDir(), LogStoreWAL)
	require.NoError(t, err)
	l := entry(1)
	l.Extensions = []byte("chunk")
	require.NoError(t, s.guard.StoreLog(l))
	require.Equal(t, "chunk", string(l.Extensions))
	var got raft.Log
	require.NoError(t, s.guard.GetLog(1, &got))
	require.Equal(t, "chunk", string(got.Extensions))
	require.NoError(t, s.base.logStore.StoreLog(entry(2))) // without a sum
	require.ErrorIs(t, s.base.GetLog(2, &got), ErrDamaged)
}

// A damaged entry that Raft asks for is fatal, and Raft does not get to panic before that is reported.
func TestGuardReportsDamage(t *testing.T) {
	end, err := openEnd(filepath.Join(t.TempDir(), endFile), discard)
	require.NoError(t, err)
	defer end.Close()
	g, fatal := testGuard(t, &sumLog{logStore: &rottenLog{}, dir: "/x/wal", end: end}, 0)
	var l raft.Log
	require.ErrorIs(t, g.GetLog(7, &l), ErrDamaged)
	require.ErrorContains(t, <-fatal, "/x/wal: entry 7")
}

type rottenLog struct{ fakeLog }

func (*rottenLog) GetLog(i uint64, l *raft.Log) error {
	*l = *entry(i)
	l.Extensions = []byte{sumVersion, 1, 2, 3, 4}
	return nil
}

func TestAsideKeepsTwo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wal")
	for _, ms := range []string{"99", "100", "101"} {
		require.NoError(t, os.MkdirAll(path+damagedSuffix+"-"+ms+"/x", 0o755))
	}
	require.NoError(t, os.Mkdir(path, 0o755))
	require.NoError(t, dropAside(path))
	left, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	require.Equal(t, []string{path, path + ".damaged-100", path + ".damaged-101"}, left)
}

func TestNodeIDFile(t *testing.T) {
	dir := t.TempDir()
	id, err := nodeID(dir, "", discard)
	require.NoError(t, err)
	name := filepath.Join(dir, nodeIDFile)
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	b[0] ^= 1
	require.NoError(t, os.WriteFile(name, b, 0o644))
	_, err = nodeID(dir, "", discard)
	require.ErrorIs(t, err, ErrDamaged)
	require.ErrorContains(t, err, name)
	require.ErrorContains(t, err, "--node.id")
	got, err := nodeID(dir, id, discard)
	require.NoError(t, err)
	require.Equal(t, id, got)
	got, err = nodeID(dir, "", discard)
	require.NoError(t, err)
	require.Equal(t, id, got)
}
