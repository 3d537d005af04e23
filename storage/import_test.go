// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

// prepared makes a block of samples of series("a"), one a minute, that can be
// imported into x from dir.
func (x *tester) prepared(dir string, from int64, n int, v float64) Prepared {
	x.t.Helper()
	src := x.t.TempDir()
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), src, math.MaxInt64/4)
	require.NoError(x.t, err)
	app := w.AppenderV2(x.t.Context())
	for i := range n {
		_, err := app.Append(0, series("a"), 0, from+int64(i)*60_000, v, nil, nil, promstorage.AppendV2Options{})
		require.NoError(x.t, err)
	}
	require.NoError(x.t, app.Commit())
	id, err := w.Flush(x.t.Context())
	require.NoError(x.t, err)
	require.NoError(x.t, w.Close())
	p, err := x.PrepareImport(x.t.Context(), filepath.Join(src, id.String()), dir,
		func(labels.Labels) error { return nil }, func(Sample) error { return nil })
	require.NoError(x.t, err)
	require.EqualValues(x.t, n, p.Samples)
	require.Equal(x.t, from, p.MinTime)
	require.Equal(x.t, from+int64(n-1)*60_000+1, p.MaxTime)
	return p
}

// What was looked at before the import counts with what came since, and a delete
// in between makes it void.
func TestImportAfterLookAhead(t *testing.T) {
	for name, tc := range map[string]struct {
		between func(x *tester)
		refused int64
		there   bool // the sample at 3 minutes, with the imported value
	}{
		"nothing": {func(*tester) {}, 4, false},
		"freeze":  {func(x *tester) { x.freeze() }, 4, false},
		"flush":   {func(x *tester) { x.freezeFlush() }, 4, false},
		"write":   {func(x *tester) { x.add("a", base+7*60_000, 1) }, 5, false},
		"delete":  {func(x *tester) { x.delete("a", base+3*60_000, base+3*60_000) }, 3, true},
		"reset":   {func(x *tester) { require.NoError(x.t, x.Reset("", nil, NoTime, NoTime)) }, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			x := manual(t)
			x.fill("a", base, 4)
			x.freeze()
			dir := filepath.Dir(x.opts.Dir)
			p := x.prepared(dir, base, 10, -5)
			require.NoError(t, x.LookAhead(t.Context(), dir, []BlockFiles{p.BlockFiles}))
			require.Len(t, x.ahead, 1)
			tc.between(x)
			st, err := x.Import(dir, []BlockFiles{p.BlockFiles})
			require.NoError(t, err)
			require.Equal(t, ImportStats{Added: 10 - tc.refused, Refused: tc.refused}, st)
			require.Empty(t, x.ahead)
			require.NoError(t, x.scrub(rate.NewLimiter(rate.Inf, scrubBuffer)), "its new files are what is expected of it")
			got, found, err := x.Lookup(nil, series("a"), base+3*60_000)
			require.NoError(t, err)
			require.True(t, found)
			require.Equal(t, tc.there, got.V == -5)
			n := 0
			require.NoError(t, withBlock(filepath.Join(dir, p.ULID.String()), func(b *tsdb.Block) error {
				n = int(b.Meta().Stats.NumTombstones)
				return nil
			}))
			require.Zero(t, n, "the files of others are as they were")
		})
	}
}

// Deletes may be applied while somebody looks ahead; the race detector tells.
func TestDeleteRacesLookAhead(t *testing.T) {
	x := manual(t)
	x.fill("a", base, 10)
	x.freezeFlush()
	dir := filepath.Dir(x.opts.Dir)
	p := x.prepared(dir, base, 10, -5)
	done := make(chan error, 1)
	go func() {
		var err error
		for range 50 {
			err = errors.Join(err, x.LookAhead(t.Context(), dir, []BlockFiles{p.BlockFiles}))
		}
		done <- err
	}()
	for len(done) == 0 {
		x.delete("a", base+1, base+1) // between two samples
	}
	require.NoError(t, <-done)
	st, err := x.Import(dir, []BlockFiles{p.BlockFiles})
	require.NoError(t, err)
	require.Equal(t, ImportStats{Refused: 10}, st)
}

// A second import of the same adds no block.
func TestImportTwice(t *testing.T) {
	x := manual(t)
	dir := filepath.Dir(x.opts.Dir)
	a, b := x.prepared(dir, base, 10, 1), x.prepared(dir, base, 10, 2)
	st, err := x.Import(dir, []BlockFiles{a.BlockFiles, b.BlockFiles})
	require.NoError(t, err)
	require.Equal(t, ImportStats{Added: 10, Refused: 10}, st, "of two blocks the first wins")
	require.Len(t, x.BlockMetas(), 1)
	got, _, err := x.Lookup(nil, series("a"), base)
	require.NoError(t, err)
	require.Equal(t, 1.0, got.V)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, a.ULID.String())))
	_, found, err := x.Lookup(nil, series("a"), base+60_000)
	require.NoError(t, err)
	require.True(t, found, "links keep the files")
}
