// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

// Snapshots of every version of the format, testdata/snapshot-v1 and so on, hold
// the same state, which testdata/snapshot.txt spells out. A new version adds a
// directory (-update writes it) and leaves the others alone.
const (
	snapshotDirs = "testdata/snapshot-v%d"
	snapshotText = "testdata/snapshot.txt"
)

// formatFSM has every type of sample and table, two blocks, and deletes in one.
func formatFSM(t *testing.T) (*FSM, *raftLog) {
	f, l := alone(t)
	l.apply(t, EncodeSettings(goldenSettings()))
	l.apply(t, goldenFresh().encode())
	_, err := f.store.FlushOne()
	require.NoError(t, err)
	l.apply(t, goldenAppend().encode())
	for i := range int64(20) {
		put(t, f, l, name("floats"), base+i*60_000, float64(i))
	}
	require.NoError(t, f.store.Freeze())
	for flushed := true; flushed; {
		flushed, err = f.store.FlushOne()
		require.NoError(t, err)
	}
	l.apply(t, EncodeDelete(Delete{ID: "delete-1", Selectors: [][]*labels.Matcher{equals(model.MetricNameLabel, "floats")}, Mint: base + 120_000, Maxt: base + 240_000}))
	l.apply(t, EncodeCutoff(base+1))
	put(t, f, l, name("floats"), base+20*60_000, math.Inf(1))
	return f, l
}

// stateText spells the logical state out.
func stateText(t *testing.T, f *FSM) string {
	t.Helper()
	var sb strings.Builder
	index, term := f.Applied()
	tab := f.table.Load()
	fmt.Fprintf(&sb, "index %d term %d max_time %d cutoff %d drop_horizon %d next_id %d requests %v\n",
		index, term, f.MaxTime(), f.Cutoff(), f.dropHorizon, tab.nextID, f.requests.order)
	fmt.Fprintf(&sb, "settings %+v\n", f.Settings())
	ss := tab.copy()
	slices.SortFunc(ss, func(a, b seriesState) int { return cmp.Compare(a.id, b.id) })
	for _, s := range ss {
		fmt.Fprintf(&sb, "series %d %s last %d kind %d\n", s.id, s.labels, s.lastT, s.kind)
	}
	ex, err := f.exemplars.copy()
	require.NoError(t, err)
	for _, x := range ex {
		fmt.Fprintf(&sb, "exemplar %s %s\n", x.series, exemplarText(x.Exemplar))
	}
	md := f.MetricMetadata()
	for _, family := range slices.Sorted(maps.Keys(md)) {
		fmt.Fprintf(&sb, "metadata %s %q\n", family, md[family])
	}
	sb.WriteString(dump(t, f))
	d := digestOf(t, f)
	// Members of two versions compare these: an algorithm that changes is a new kind of entry.
	fmt.Fprintf(&sb, "digest %s tables %s of %d samples in %d series\n", d.Ranges[0].Hash, d.StateHash, d.Ranges[0].Samples, d.Ranges[0].Series)
	return sb.String()
}

func TestSnapshotFormats(t *testing.T) {
	f, _ := formatFSM(t)
	if *update {
		require.NoError(t, os.WriteFile(snapshotText, []byte(stateText(t, f)), 0o666))
		dir := fmt.Sprintf(snapshotDirs, snapshotVersion)
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			require.NoError(t, os.CopyFS(dir, os.DirFS(persist(t, f))))
		}
	}
	text, err := os.ReadFile(snapshotText)
	require.NoError(t, err)
	want := string(text)
	require.Equal(t, want, stateText(t, f), "the same log gives the same state in every version")
	for v := 1; v <= snapshotVersion; v++ {
		t.Run(fmt.Sprint("version ", v), func(t *testing.T) {
			dir := t.TempDir() // hard links do not leave a file system
			require.NoError(t, os.CopyFS(dir, os.DirFS(fmt.Sprintf(snapshotDirs, v))))
			g := newFSM(t, dir)
			require.Equal(t, want, stateText(t, g))

			// It goes on from there, and its next snapshot is as good.
			index, _ := g.Applied()
			r := g.Apply(index+1, 1, goldenAppend().encode())
			require.Empty(t, r.Err)
			g.Publish(index+1, 1)
			h := newFSM(t, persist(t, g))
			require.Equal(t, stateText(t, g), stateText(t, h))
		})
	}
}

// A snapshot of a newer version is refused, in words, and left as it is.
func TestNewerSnapshotIsRefused(t *testing.T) {
	f, _ := formatFSM(t)
	dir := persist(t, f)
	file := filepath.Join(dir, ManifestName)
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	line, _, _ := strings.Cut(string(b), "\n")
	newer := strings.Replace(line, fmt.Sprintf(`"version":%d`, snapshotVersion), fmt.Sprintf(`"version":%d`, snapshotVersion+1), 1)
	require.NotEqual(t, line, newer)
	b = sealedLine(newer)
	require.NoError(t, os.WriteFile(file, b, 0o666))
	_, err = Open(Options{Dir: t.TempDir(), Storage: storage.Options{Manual: true}}, dir)
	require.ErrorIs(t, err, ErrSnapshot)
	require.ErrorIs(t, err, ErrNewer)
	require.ErrorContains(t, err, fmt.Sprintf("format version %d", snapshotVersion+1))
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, b, after)
}

// sealedLine is a line of JSON and one with its checksum.
func sealedLine(line string) []byte {
	return fmt.Appendf(nil, "%s\n%08x\n", line, crc32.Checksum([]byte(line), castagnoli))
}
