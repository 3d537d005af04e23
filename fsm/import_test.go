// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

const importName = "00000000000000aa"

// importInto makes an entry of one block of floats: series, time from base in minutes, value.
func importInto(t *testing.T, f *FSM, files importFiles, rows ...[3]int64) []byte {
	t.Helper()
	block := map[int]map[int64]storage.Sample{}
	for _, r := range rows {
		if block[int(r[0])] == nil {
			block[int(r[0])] = map[int64]storage.Sample{}
		}
		ts := base + r[1]*minute
		block[int(r[0])][ts] = storage.Sample{T: ts, V: float64(r[2])}
	}
	p := prepare(t, f, filepath.Join(string(files), importName), block)
	return EncodeImport(Import{ID: importName, Blocks: []storage.BlockFiles{p.BlockFiles}})
}

// A block that reaches into the last minutes does not keep anybody from writing on, and what it brought is there for
// all the rules: without a window, too.
func TestImportOfTheLastMinutes(t *testing.T) {
	f, l := alone(t)
	files := importFiles(t.TempDir())
	f.SetImportFiles(files)
	put(t, f, l, seriesLabels(1), base+60*minute, 1)
	l.apply(t, importInto(t, f, files, [3]int64{1, 30, 7}, [3]int64{1, 60, 7}, [3]int64{2, 59, 7}, [3]int64{3, -500, 7}))

	refused := func(series int, at int64, v float64) map[Reason]int {
		return put(t, f, l, seriesLabels(series), base+at*minute, v).Refused
	}
	require.Empty(t, refused(1, 61, 1), "a live series goes on")
	require.Empty(t, refused(1, 30, 7), "the same again is no error")
	require.Equal(t, map[Reason]int{Duplicate: 1}, refused(1, 30, 8), "the import came first")
	require.Equal(t, map[Reason]int{Duplicate: 1}, refused(1, 60, 7), "the write came first")
	require.Equal(t, map[Reason]int{OutOfOrder: 1}, refused(2, 58, 1), "older than what came with the import")
	require.Empty(t, refused(2, 60, 1))
	require.Empty(t, refused(3, 60, 1), "a series with old samples only is like a new one")
	require.Equal(t, "1800000=7 3600000=1 3660000=1", floatsOf(t, f, seriesLabels(1)))
	st, ok := f.ImportOutcome(importName)
	require.True(t, ok)
	require.Equal(t, storage.ImportStats{Added: 3, Refused: 1}, st)
}

// An empty cluster takes its time from what is imported.
func TestImportIntoNothing(t *testing.T) {
	f, l := alone(t)
	files := importFiles(t.TempDir())
	f.SetImportFiles(files)
	l.apply(t, importInto(t, f, files, [3]int64{1, 0, 7}, [3]int64{1, 300, 8}))
	require.Equal(t, base+300*minute, f.MaxTime())
	require.Equal(t, "0=7 18000000=8", floatsOf(t, f, seriesLabels(1)))
}

// A node that cannot get the files stops: it would differ from the others.
func TestImportWithoutFiles(t *testing.T) {
	f, l := alone(t)
	files := importFiles(t.TempDir())
	entry := importInto(t, f, files, [3]int64{1, 0, 7})
	f.SetImportFiles(noFiles{})
	require.Contains(t, l.propose(t, entry).Err, "nobody has them")
	require.ErrorContains(t, f.Err(), "files of import "+importName)
}

type noFiles struct{}

func (noFiles) Ensure(context.Context, uint64, Import) (string, error) {
	return "", errors.New("nobody has them")
}

// What no append could have written is not imported either.
func TestPrepareImportRefuses(t *testing.T) {
	f, _ := alone(t)
	files := importFiles(t.TempDir())
	p := prepare(t, f, string(files), map[int]map[int64]storage.Sample{1: {base: {T: base, V: 1}}})
	src := filepath.Join(string(files), p.ULID.String())
	_, err := f.PrepareImport(t.Context(), src, t.TempDir(), base-1)
	require.ErrorIs(t, err, storage.ErrImport)
	require.ErrorContains(t, err, "future")
	_, err = f.Storage().PrepareImport(t.Context(), src, t.TempDir(), func(labels.Labels) error {
		return errors.New("labels that cannot be stored")
	}, func(storage.Sample) error { return nil })
	require.ErrorContains(t, err, "cannot be stored")
	_, err = f.PrepareImport(t.Context(), t.TempDir(), t.TempDir(), math.MaxInt64)
	require.ErrorIs(t, err, storage.ErrImport, "no block at all")
}
