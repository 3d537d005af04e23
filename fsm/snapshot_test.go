// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

// fixedState is a state with something of everything.
func fixedState(t testing.TB) (*FSM, *raftLog) {
	f := newFSM(t, "")
	l := newLog(f)
	l.apply(t, EncodeSettings(goldenSettings()))
	e := goldenFresh()
	e.metadata = []familyMetadata{{"old", metadata.Metadata{Type: "counter", Help: "first"}}, {"old", metadata.Metadata{Type: "gauge", Unit: "s", Help: "second"}}}
	l.apply(t, e.encode())
	require.NoError(t, f.Storage().Freeze())
	_, err := f.Storage().FlushOne()
	require.NoError(t, err)
	l.apply(t, EncodeDelete(Delete{ID: "d1", Selectors: [][]*labels.Matcher{equals("n", "b")}, Mint: base, Maxt: base + 100}))
	l.apply(t, EncodeCutoff(base-1000))
	put(t, f, l, labels.FromStrings(model.MetricNameLabel, "old", "n", "b"), base+20_000, 4)
	l.leader.Publish(uint64(l.len()), 3)
	return f, l
}

// persist writes a snapshot of f and returns its directory.
func persist(t testing.TB, f *FSM) string {
	t.Helper()
	s, err := f.Snapshot()
	require.NoError(t, err)
	defer s.Release()
	dir := t.TempDir()
	require.NoError(t, s.Persist(t.Context(), dir))
	require.NoError(t, VerifySnapshot(dir, true))
	return dir
}

// whole describes all of a state.
func whole(t testing.TB, f *FSM) string {
	t.Helper()
	i, term := f.Applied()
	ex, err := f.exemplars.copy()
	require.NoError(t, err)
	return fmt.Sprintln(i, term, f.Settings(), f.Cutoff(), f.MaxTime(), f.requests.order, f.MetricMetadata(), ex) + tableDump(f) + "\n" + dump(t, f)
}

// Whoever asks while a snapshot is restored gets an answer from before or after.
func TestRestoreShowsNoHalf(t *testing.T) {
	const n = 2000
	f, l := alone(t)
	l.apply(t, EncodeSettings(Settings{MaxExemplars: n}))
	var ms []familyMetadata
	for i := range n {
		f.exemplars.add(name("x"), exemplarAt(base+int64(i), i))
		ms = append(ms, familyMetadata{fmt.Sprint("family", i), metadata.Metadata{Help: "h"}})
	}
	f.metadata.merge(ms)
	dir := persist(t, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			assert.NoError(t, f.Restore(dir))
		}
	}()
	t.Cleanup(func() { <-done })
	for {
		xs, err := f.exemplars.copy()
		require.NoError(t, err)
		require.Len(t, xs, n)
		require.Len(t, f.MetricMetadata(), n)
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	f, _ := fixedState(t)
	dir := persist(t, f)
	want := whole(t, f)
	g := newFSM(t, dir)
	require.Equal(t, want, whole(t, g), "into a fresh state machine")
	require.Equal(t, want, whole(t, newFSM(t, persist(t, g))), "and once more")

	busy := newFSM(t, "")
	l := newLog(busy)
	for i := range 5 {
		put(t, busy, l, name(fmt.Sprint("other", i)), base+int64(i)*7_200_000, 1)
		require.NoError(t, busy.Storage().Freeze())
	}
	require.NoError(t, busy.Restore(dir))
	require.Equal(t, want, whole(t, busy), "over another state")
	require.NoError(t, VerifySnapshot(dir, true), "which does not change the snapshot")
}

// The logical state in a snapshot is a format that later versions must read.
func TestSnapshotGoldenState(t *testing.T) {
	f, _ := fixedState(t)
	dir := persist(t, f)
	b, err := os.ReadFile(filepath.Join(dir, stateName))
	require.NoError(t, err)
	golden(t, "state-2", b)

	var tags []section
	for rest := b; len(rest) > 0; {
		n := int(rest[1]) | int(rest[2])<<8 | int(rest[3])<<16 | int(rest[4])<<24
		tags = append(tags, section(rest[0]))
		rest = rest[5+n:]
	}
	require.Equal(t, []section{stateHeader, stateSeries, stateExemplars, stateMetadata, stateEnd}, tags)

	for version, name := range map[uint32]string{1: "state", 2: "state-2"} {
		old := t.TempDir() // as a former version left it, without blocks
		require.NoError(t, os.Mkdir(filepath.Join(old, blocksName), 0o777))
		b = readGolden(t, name)
		require.NoError(t, os.WriteFile(filepath.Join(old, stateName), b, 0o666))
		require.NoError(t, writeManifest(old, Manifest{
			Version: version, Index: 5, Term: 3,
			State: storage.File{Path: stateName, Size: int64(len(b)), CRC32C: crc32.Checksum(b, castagnoli)},
		}))
		g := newFSM(t, old)
		want, got := whole(t, f), whole(t, g)
		require.Equal(t, strings.TrimSuffix(want, dump(t, f)), strings.TrimSuffix(got, dump(t, g)), name)
	}
}

func TestSnapshotGoldenManifest(t *testing.T) {
	dir := persist(t, newFSM(t, ""))
	b, err := os.ReadFile(filepath.Join(dir, ManifestName))
	require.NoError(t, err)
	golden(t, "manifest-empty", b)
	require.NoError(t, VerifySnapshot(dir, true))
}

// damage changes one file of a copy of a snapshot.
func damage(t *testing.T, dir, file string, change func([]byte) []byte) string {
	t.Helper()
	c := t.TempDir()
	require.NoError(t, os.CopyFS(c, os.DirFS(dir)))
	name := filepath.Join(c, file)
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.Remove(name))
	if b = change(b); b != nil {
		require.NoError(t, os.WriteFile(name, b, 0o666))
	}
	return c
}

func TestSnapshotDamage(t *testing.T) {
	f, _ := fixedState(t)
	dir := persist(t, f)
	g, _ := alone(t)
	before := whole(t, g)
	blocks, err := os.ReadDir(filepath.Join(dir, blocksName))
	require.NoError(t, err)
	block := filepath.Join(blocksName, blocks[0].Name())
	flip := func(b []byte) []byte { b[len(b)/2] ^= 4; return b }
	flipFirst := func(b []byte) []byte { b[0] ^= 1; return b }
	flipLast := func(b []byte) []byte { b[len(b)-2] ^= 1; return b }
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	remove := func([]byte) []byte { return nil }
	files := []string{ManifestName, stateName, filepath.Join(block, "meta.json"), filepath.Join(block, "tombstones"), filepath.Join(block, "index"), filepath.Join(block, "chunks", "000001")}
	for i, file := range files {
		changes := map[string]func([]byte) []byte{"cut": cut, "remove": remove}
		if i < 5 {
			changes["flip"], changes["flip first"], changes["flip last"] = flip, flipFirst, flipLast
		}
		for what, change := range changes {
			t.Run(what+" "+filepath.Base(file), func(t *testing.T) {
				bad := damage(t, dir, file, change)
				err := VerifySnapshot(bad, false)
				require.ErrorIs(t, err, ErrSnapshot)
				require.ErrorContains(t, err, filepath.Join(bad, file))
				require.ErrorIs(t, g.Restore(bad), ErrSnapshot)
				require.Equal(t, before, whole(t, g), "a restore that fails changes nothing")
				_, err = Open(Options{Dir: t.TempDir(), Storage: storage.Options{Manual: true}}, bad)
				require.ErrorIs(t, err, ErrSnapshot)
			})
		}
	}
	require.ErrorIs(t, VerifySnapshot(t.TempDir(), false), ErrSnapshot)
	require.NoError(t, g.Restore(dir), "the original is not damaged")
}

// A flipped bit in a chunk segment is found by a full verification, and by every
// read of the chunk.
func TestSnapshotDamagedChunk(t *testing.T) {
	f, _ := fixedState(t)
	dir := persist(t, f)
	blocks, err := os.ReadDir(filepath.Join(dir, blocksName))
	require.NoError(t, err)
	segment := filepath.Join(blocksName, blocks[0].Name(), "chunks", "000001")
	bad := damage(t, dir, segment, func(b []byte) []byte {
		b[len(b)-6] ^= 1 // in the last chunk's data; its checksum follows
		return b
	})
	require.NoError(t, VerifySnapshot(bad, false))
	err = VerifySnapshot(bad, true)
	require.ErrorIs(t, err, storage.ErrDamaged)
	require.ErrorContains(t, err, filepath.Join(bad, segment))

	g := newFSM(t, bad)
	q, err := g.Querier(-1<<50, 1<<50)
	require.NoError(t, err)
	defer q.Close()
	ss := q.Select(t.Context(), true, nil, everything)
	for ss.Next() && err == nil {
		it := ss.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
		}
		err = it.Err()
	}
	require.ErrorContains(t, errors.Join(err, ss.Err()), "checksum")
}

// What two snapshots share is read once.
func TestSnapshotVerifierReadsOnce(t *testing.T) {
	f, _ := fixedState(t)
	a, b := persist(t, f), persist(t, f)
	blocks, err := os.ReadDir(filepath.Join(a, blocksName))
	require.NoError(t, err)
	verify := SnapshotVerifier(true)
	require.NoError(t, verify(a))
	segment := filepath.Join(blocksName, blocks[0].Name(), "chunks", "000001")
	w, err := os.OpenFile(filepath.Join(a, segment), os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = w.WriteAt([]byte("no"), 20)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, verify(b), "the same file, which has been read")
	require.ErrorIs(t, SnapshotVerifier(true)(b), storage.ErrDamaged)
	require.NoError(t, SnapshotVerifier(false)(b))

	// A file of its own is read.
	verify = SnapshotVerifier(false)
	require.NoError(t, verify(a))
	require.ErrorIs(t, verify(damage(t, b, filepath.Join(blocksName, blocks[0].Name(), "index"), func(x []byte) []byte {
		x[len(x)/2] ^= 4
		return x
	})), storage.ErrDamaged)
}

// An index that cannot be opened although its checksum is right: the state is still
// what it was then.
func TestSnapshotDamagedIndex(t *testing.T) {
	f, _ := fixedState(t)
	dir := persist(t, f)
	g, _ := alone(t)
	before := whole(t, g)
	blocks, err := os.ReadDir(filepath.Join(dir, blocksName))
	require.NoError(t, err)
	bad := damage(t, dir, filepath.Join(blocksName, blocks[0].Name(), "index"), func(b []byte) []byte {
		b[len(b)-10] ^= 1 // in the table of contents
		return b
	})
	bad = rewriteManifest(t, bad, func(m *Manifest) {
		for _, b := range m.Blocks {
			for i, x := range b.Files {
				if x.Path == "index" {
					s, err := os.ReadFile(filepath.Join(bad, blocksName, b.ULID.String(), x.Path))
					require.NoError(t, err)
					b.Files[i].CRC32C = crc32.Checksum(s, castagnoli)
				}
			}
		}
	})
	require.NoError(t, VerifySnapshot(bad, false))
	require.ErrorContains(t, g.Restore(bad), blocks[0].Name())
	require.Equal(t, before, whole(t, g))
	live, err := os.ReadDir(filepath.Join(g.opts.Dir, "live"))
	require.NoError(t, err)
	require.Len(t, live, 2, "nothing of the attempt is left: %v", live)
}

// rewriteManifest changes the manifest of a copy of a snapshot, with a good sum.
func rewriteManifest(t *testing.T, dir string, change func(*Manifest)) string {
	return damage(t, dir, ManifestName, func(b []byte) []byte {
		var m Manifest
		body, _, _ := strings.Cut(string(b), "\n")
		require.NoError(t, json.Unmarshal([]byte(body), &m))
		change(&m)
		tmp := t.TempDir()
		require.NoError(t, writeManifest(tmp, m))
		b, err := os.ReadFile(filepath.Join(tmp, ManifestName))
		require.NoError(t, err)
		return b
	})
}

func TestSnapshotVersions(t *testing.T) {
	f, _ := fixedState(t)
	dir := persist(t, f)
	newer := rewriteManifest(t, dir, func(m *Manifest) { m.Version = 3 })
	err := VerifySnapshot(newer, false)
	require.ErrorIs(t, err, ErrSnapshot)
	require.ErrorContains(t, err, "format version 3")
	require.ErrorContains(t, err, filepath.Join(newer, ManifestName))

	before := whole(t, f)
	err = f.Restore(rewriteManifest(t, dir, func(m *Manifest) { m.Index++ }))
	require.ErrorIs(t, err, ErrSnapshot)
	require.Equal(t, before, whole(t, f))
}

func TestSnapshotUnknownStateSection(t *testing.T) {
	f, _ := fixedState(t)
	dir := persist(t, f)
	var state []byte
	bad := damage(t, dir, stateName, func(b []byte) []byte {
		state = slices.Concat(b[:len(b)-5], []byte{9, 0, 0, 0, 0}, b[len(b)-5:])
		return state
	})
	bad = rewriteManifest(t, bad, func(m *Manifest) {
		m.State.Size, m.State.CRC32C = int64(len(state)), crc32.Checksum(state, castagnoli)
	})
	before := whole(t, f)
	require.ErrorIs(t, f.Restore(bad), ErrSnapshot)
	require.Equal(t, before, whole(t, f))
}

// More series and exemplars than one section of the state file holds.
func TestSnapshotManySeries(t *testing.T) {
	f := newFSM(t, "")
	l := newLog(f)
	l.apply(t, EncodeSettings(Settings{MaxExemplars: 3 * stateBatch, OutOfOrderWindow: time.Hour}))
	commit(t, f, l, func(b *Batch) {
		for i := range 2*stateBatch + 3 {
			b.Series(nil, labels.FromStrings(model.MetricNameLabel, "m", "i", fmt.Sprint(i)))
			b.Float(base, float64(i))
			b.Exemplar(exemplarAt(base, i))
		}
	})
	g := newFSM(t, persist(t, f))
	require.Equal(t, whole(t, f), whole(t, g))
	require.EqualValues(t, 2*stateBatch+3, g.table.Load().n.Load())
}
