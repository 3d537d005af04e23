// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

// blockOf is a tar of a block with samples [from, to) as write makes them, but for their values.
func blockOf(t *testing.T, from, to int) *bytes.Buffer {
	t.Helper()
	dir := t.TempDir()
	writeBlock(t, dir, from, to)
	return packDir(t, dir)
}

func writeBlock(t *testing.T, dir string, from, to int) {
	t.Helper()
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), dir, math.MaxInt64/4)
	require.NoError(t, err)
	app := w.AppenderV2(t.Context())
	for i := from; i < to; i++ {
		ls := labels.FromStrings("__name__", "m", "i", fmt.Sprint(i))
		_, err := app.Append(0, ls, 0, 1_000_000+int64(i), float64(-i), nil, nil, storage.AppendV2Options{})
		require.NoError(t, err)
	}
	require.NoError(t, app.Commit())
	_, err = w.Flush(t.Context())
	require.NoError(t, err)
	require.NoError(t, w.Close())
}

func packDir(t *testing.T, dir string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	require.NoError(t, out.AddFS(os.DirFS(dir)))
	require.NoError(t, out.Close())
	return &b
}

func (n *testNode) take(b io.Reader) *cluster.ImportReport {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	r, err := n.Import(ctx, b)
	require.NoError(n.t, err)
	return r
}

// values are those of the series i, in order of time.
func (n *testNode) values(i int) (vs []float64) {
	n.t.Helper()
	q, err := n.fsm.Querier(0, 1<<40)
	require.NoError(n.t, err)
	defer q.Close()
	ss := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "i", fmt.Sprint(i)))
	for ss.Next() {
		for it := ss.At().Iterator(nil); it.Next() != 0; {
			_, v := it.At()
			vs = append(vs, v)
		}
	}
	require.NoError(n.t, ss.Err())
	return vs
}

func (n *testNode) importDirs() []string {
	n.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(n.cfg.Dir, "imports", "*"))
	require.NoError(n.t, err)
	return dirs
}

func waitLevel(t *testing.T, nodes []*testNode) {
	t.Helper()
	require.Eventually(t, func() bool { return nodes[0].fsm.Settings().MinVersion >= 4 }, 30*time.Second, 10*time.Millisecond)
}

// An import through a follower is on all nodes when the call returns. Where there was a sample, that one stays.
func TestImport(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	waitLevel(t, nodes)
	_, rest := leaderOf(t, nodes)
	for i := range 10 {
		rest[0].mustWrite(i)
	}
	r := rest[0].take(blockOf(t, 5, 25))
	require.EqualValues(t, 20, r.Samples)
	require.EqualValues(t, 5, r.Duplicates)
	require.Len(t, r.Blocks, 1)
	require.EqualValues(t, 20, r.Blocks[0].Series)
	require.EqualValues(t, 1_000_005, r.Blocks[0].MinTime)
	for _, n := range nodes {
		require.Equal(t, 25, n.count(), n.ID())
		require.Equal(t, []float64{7}, n.values(7), n.ID())
		require.Equal(t, []float64{-17}, n.values(17), n.ID())
	}
	again := rest[1].take(blockOf(t, 5, 25))
	require.EqualValues(t, 20, again.Duplicates, "a second time it adds nothing")
	report, err := rest[1].Digest(t.Context(), []fsm.TimeRange{{Mint: math.MinInt64, Maxt: math.MaxInt64}})
	require.NoError(t, err)
	require.Equal(t, cluster.DigestEqual, report.Result)
}

// The labels by which Thanos tells replicas apart are not in the series of a block. That they are left out is not kept from
// who imports it.
func TestImportWarnsOfExternalLabels(t *testing.T) {
	dir := t.TempDir()
	writeBlock(t, dir, 0, 5)
	metas, err := filepath.Glob(filepath.Join(dir, "*", "meta.json"))
	require.NoError(t, err)
	require.Len(t, metas, 1)
	text, err := os.ReadFile(metas[0])
	require.NoError(t, err)
	with := func(thanos string) io.Reader {
		require.NoError(t, os.WriteFile(metas[0], bytes.Replace(text, []byte("{"), []byte(`{"thanos": `+thanos+","), 1), 0o600))
		return packDir(t, dir)
	}
	n := startNode(t, cluster.Config{NodeID: "n0", BootstrapExpect: 1})
	n.waitReady()
	waitLevel(t, []*testNode{n})
	block := filepath.Base(filepath.Dir(metas[0]))
	require.Equal(t, []string{"block " + block + `: its series do not get the external labels {cluster="c", replica="a"} that Thanos has noted`},
		n.take(with(`{"labels": {"replica": "a", "cluster": "c"}, "downsample": {"resolution": 0}}`)).Warnings)
	require.Empty(t, n.take(with(`{"labels": {}}`)).Warnings)
	require.Empty(t, n.take(with(`"something else"`)).Warnings)
	require.Empty(t, n.take(blockOf(t, 0, 5)).Warnings)
}

// A node that is down during an import gets the blocks from another one when it comes to the entry, also in a second
// life, and without the node that was given them.
func TestImportMissed(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	waitLevel(t, nodes)
	leader, rest := leaderOf(t, nodes)
	leader.mustWrite(0)
	rest[1].crash()
	require.Eventually(t, func() bool {
		_, err := leader.Import(t.Context(), blockOf(t, 0, 30))
		if err != nil {
			require.ErrorContains(t, err, "nothing is imported") // gossip takes the node for alive
		}
		return err == nil
	}, time.Minute, 100*time.Millisecond)
	rest[1].start()
	rest[1].waitCount(30)
	require.Equal(t, []float64{0}, rest[1].values(0))

	// All of its own files lost: it replays the log.
	rest[1].crash()
	require.NoError(t, os.RemoveAll(filepath.Join(rest[1].cfg.Dir, "imports")))
	rest[1].start()
	rest[1].waitCount(30)
	require.Len(t, rest[1].importDirs(), 1)
}

// What is not a sound block changes nothing.
func TestImportRefuses(t *testing.T) {
	n := startNode(t, cluster.Config{NodeID: "n0"})
	n.waitReady()
	waitLevel(t, []*testNode{n})
	good := blockOf(t, 0, 100).Bytes()
	file := func(name, content string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644}))
		_, err := io.WriteString(w, content)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return b.Bytes()
	}
	for name, b := range map[string][]byte{
		"empty":        nil,
		"no tar":       bytes.Repeat([]byte("x"), 2000),
		"cut":          good[:len(good)/2],
		"outside":      file("../../x/meta.json", "{}"),
		"absolute":     file("/x/meta.json", "{}"),
		"unknown file": file("x/passwd", "{}"),
		"no index":     file("x/meta.json", `{"version":1,"minTime":0,"maxTime":9}`),
		"flipped":      flipped(t, good),
		"short stones": shortStones(t, good),
	} {
		_, err := n.Import(t.Context(), bytes.NewReader(b))
		require.ErrorIs(t, err, cluster.ErrImportRefused, name)
		t.Log(name, err)
	}
	require.Empty(t, n.importDirs())
	require.Zero(t, n.count())
	n.take(bytes.NewReader(good))
	require.Equal(t, 100, n.count())
}

// A tar whose sender was killed may end between two files: no block may be missing for that, and no deletes of one.
func TestImportOfACutTar(t *testing.T) {
	t.Parallel()
	n := startNode(t, cluster.Config{NodeID: "n0"})
	n.waitReady()
	waitLevel(t, []*testNode{n})
	dir := t.TempDir()
	writeBlock(t, dir, 0, 5)
	writeBlock(t, dir, 5, 10)
	whole := packDir(t, dir).Bytes()
	for i := 0; i < len(whole); i += 128 {
		_, err := n.Import(t.Context(), bytes.NewReader(whole[:i]))
		require.ErrorIs(t, err, cluster.ErrImportRefused, "%d of %d bytes", i, len(whole))
		require.ErrorContains(t, err, "cut off")
	}
	require.Zero(t, n.count())
	require.Empty(t, n.importDirs())
	padded := bytes.NewReader(append(whole, make([]byte, 10<<10)...))
	n.take(padded)
	require.Zero(t, padded.Len(), "the sender gets rid of all that it has")
	require.Equal(t, 10, n.count())
}

// A hole of any size takes no room in a tar, but on the disk.
func TestImportOfHoles(t *testing.T) {
	n := startNode(t, cluster.Config{NodeID: "n0"})
	n.waitReady()
	waitLevel(t, []*testNode{n})
	for _, bits := range []int{50, 61, 62} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := n.Import(ctx, bytes.NewReader(sparse(t, "x/index", 1<<bits)))
		cancel()
		require.ErrorIs(t, err, cluster.ErrDiskFull, "%d bits", bits)
	}
	require.Empty(t, n.importDirs())
}

// sparse is a tar of a file without any content, which package tar reads and does not write.
func sparse(t *testing.T, name string, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name, content string) {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644, Format: tar.FormatUSTAR}))
		_, err := io.WriteString(w, content)
		require.NoError(t, err)
	}
	var records string
	for _, r := range []string{"major=1", "minor=0", "name=" + name, fmt.Sprint("realsize=", size)} {
		r = " GNU.sparse." + r + "\n"
		records += fmt.Sprint(len(r)+2) + r
	}
	add("x", records)
	b.Bytes()[156] = tar.TypeXHeader
	sum := 0
	for i, c := range b.Bytes()[:512] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int(c)
	}
	copy(b.Bytes()[148:], fmt.Sprintf("%06o\x00 ", sum))
	add(name, "0\n"+string(make([]byte, 510)))
	require.NoError(t, w.Close())
	return b.Bytes()
}

// shortStones leaves eight bytes of the tombstones, for which TSDB panics.
func shortStones(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	in, w := tar.NewReader(bytes.NewReader(b)), tar.NewWriter(&out)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			require.NoError(t, w.Close())
			return out.Bytes()
		}
		require.NoError(t, err)
		if filepath.Base(h.Name) == "tombstones" {
			h.Size = 8
		}
		require.NoError(t, w.WriteHeader(h))
		_, err = io.CopyN(w, in, h.Size)
		require.NoError(t, err)
	}
}

// flipped changes one byte of a chunk.
func flipped(t *testing.T, b []byte) []byte {
	t.Helper()
	b = bytes.Clone(b)
	i := bytes.Index(b, []byte{0x85, 0xbd, 0x40, 0xdd}) // a segment begins with it
	require.Positive(t, i)
	b[i+20] ^= 1
	return b
}

// missedImport is a cluster in which the last node was down during an import, and is still.
func missedImport(t *testing.T) (there []*testNode, down *testNode) {
	t.Helper()
	nodes := startCluster(t, nil)
	waitLevel(t, nodes)
	leader, rest := leaderOf(t, nodes)
	rest[1].crash()
	require.Eventually(t, func() bool {
		_, err := leader.Import(t.Context(), blockOf(t, 0, 30))
		return err == nil
	}, time.Minute, 100*time.Millisecond)
	return []*testNode{leader, rest[0]}, rest[1]
}

// A node that cannot have the blocks now waits for them, and can be stopped meanwhile.
func TestImportAwaited(t *testing.T) {
	t.Parallel()
	there, down := missedImport(t)
	hide := func(from, to string) {
		for _, n := range there {
			for _, dir := range n.importDirs() {
				require.NoError(t, os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)))
				if from == "list" {
					require.NoError(t, os.WriteFile(filepath.Join(dir, from), []byte("no list"), 0o644))
				}
			}
		}
	}
	hide("list", "hidden")
	for range 2 {
		down.start()
		down.eventually("waiting", func() bool { return down.metric("deucalion_raft_import_waiting") == 1 })
		require.Error(t, down.Ready())
		down.stop()
	}
	down.start()
	down.eventually("waiting", func() bool { return down.metric("deucalion_raft_import_waiting") == 1 })
	hide("hidden", "list")
	down.waitCount(30)
	down.waitReady()
	require.Zero(t, down.metric("deucalion_raft_import_waiting"))
}

// When nobody has the blocks any more, a node that needs them stops, and says why.
func TestImportLost(t *testing.T) {
	t.Parallel()
	there, down := missedImport(t)
	for _, n := range there {
		require.NoError(t, os.RemoveAll(filepath.Join(n.cfg.Dir, "imports")))
	}
	down.start()
	down.eventually("stopped", func() bool { return down.fsm.Err() != nil })
	require.ErrorContains(t, down.fsm.Err(), "no member has its files any more")
	require.Zero(t, down.count())
	require.ErrorIs(t, down.Ready(), cluster.ErrFSMFailed)
	require.Equal(t, 30, there[0].count(), "the others go on")
}
