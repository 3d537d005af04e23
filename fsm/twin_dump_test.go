// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

// dumps are the ways to read everything.
var dumps = []struct {
	name string
	dump func(*twin, *FSM, int64, int64) string
}{
	{"by Next", func(w *twin, f *FSM, mint, maxt int64) string { return dumpQueryable(w, f, mint, maxt, false) }},
	{"by Seek", func(w *twin, f *FSM, mint, maxt int64) string { return dumpQueryable(w, f, mint, maxt, true) }},
	{"exact", func(w *twin, f *FSM, mint, maxt int64) string {
		return dumpQueryable(w, f.ExactQueryable(), mint, maxt, false)
	}},
	{"by chunks", dumpChunks},
}

var everything = labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".+")

func dumpQueryable(w *twin, qa promstorage.Queryable, mint, maxt int64, seek bool) string {
	q, err := qa.Querier(mint, maxt)
	require.NoError(w, err)
	defer q.Close()
	ss := q.Select(w.Context(), true, &promstorage.SelectHints{Start: mint, End: maxt}, everything)
	var sb strings.Builder
	var it chunkenc.Iterator
	for ss.Next() {
		it = ss.At().Iterator(it)
		dumpSeries(w, &sb, ss.At().Labels(), it, mint, seek)
	}
	require.NoError(w, ss.Err())
	return sb.String()
}

func dumpSeries(w *twin, sb *strings.Builder, ls labels.Labels, it chunkenc.Iterator, mint int64, seek bool) {
	vt := chunkenc.ValNone
	if seek {
		vt = it.Seek(mint)
	} else {
		vt = it.Next()
	}
	line := ""
	for ; vt != chunkenc.ValNone; vt = it.Next() {
		line += sampleText(it, vt)
	}
	require.NoError(w, it.Err())
	if line != "" {
		fmt.Fprintf(sb, "%s:%s\n", ls, line)
	}
}

func sampleText(it chunkenc.Iterator, vt chunkenc.ValueType) string {
	var x storage.Sample
	switch vt {
	case chunkenc.ValFloat:
		x.T, x.V = it.At()
	case chunkenc.ValHistogram:
		x.T, x.H = it.AtHistogram(nil)
	case chunkenc.ValFloatHistogram:
		x.T, x.FH = it.AtFloatHistogram(nil)
	}
	return fmt.Sprintf(" %d=%s", x.T, text(x))
}

func dumpChunks(w *twin, f *FSM, mint, maxt int64) string {
	q, err := f.ChunkQuerier(mint, maxt)
	require.NoError(w, err)
	defer q.Close()
	ss := q.Select(w.Context(), true, nil, everything)
	var sb strings.Builder
	var it chunks.Iterator
	for ss.Next() {
		line := ""
		for it = ss.At().Iterator(it); it.Next(); {
			samples := it.At().Chunk.Iterator(nil)
			for vt := samples.Next(); vt != chunkenc.ValNone; vt = samples.Next() {
				line += sampleText(samples, vt)
			}
			require.NoError(w, samples.Err())
		}
		require.NoError(w, it.Err())
		fmt.Fprintf(&sb, "%s:%s\n", ss.At().Labels(), line)
	}
	require.NoError(w, ss.Err())
	return sb.String()
}

func labelsOf(w *twin, f *FSM, mint, maxt int64, name string) (names, values []string) {
	q, err := f.Querier(mint, maxt)
	require.NoError(w, err)
	defer q.Close()
	names, _, err = q.LabelNames(w.Context(), nil)
	require.NoError(w, err)
	values, _, err = q.LabelValues(w.Context(), name, nil)
	require.NoError(w, err)
	return nilIfEmpty(names), nilIfEmpty(values)
}

// seriesOf lists the series that match and have samples, by their label i, as /api/v1/series asks for them.
func seriesOf(w *twin, f *FSM, mint, maxt int64, m *labels.Matcher) (out []string) {
	q, err := f.Querier(mint, maxt)
	require.NoError(w, err)
	defer q.Close()
	ss := q.Select(w.Context(), true, &promstorage.SelectHints{Start: mint, End: maxt, Func: "series"}, m)
	for ss.Next() {
		out = append(out, ss.At().Labels().Get("i"))
	}
	require.NoError(w, ss.Err())
	slices.Sort(out)
	return out
}

// valuesOf is seriesOf by a look-up of label values.
func valuesOf(w *twin, f *FSM, mint, maxt int64, m *labels.Matcher) []string {
	q, err := f.Querier(mint, maxt)
	require.NoError(w, err)
	defer q.Close()
	out, _, err := q.LabelValues(w.Context(), "i", nil, m)
	require.NoError(w, err)
	return nilIfEmpty(out)
}

func nilIfEmpty(s []string) []string {
	if len(s) == 0 {
		return nil
	}
	return s
}

func exemplarDump(w interface {
	require.TestingT
	Context() context.Context
}, f *FSM,
) string {
	q, err := f.ExemplarQuerier(w.Context())
	require.NoError(w, err)
	res, err := q.Select(math.MinInt64, math.MaxInt64, []*labels.Matcher{everything})
	require.NoError(w, err)
	var lines []string
	for _, r := range res {
		l := r.SeriesLabels.String()
		for _, e := range r.Exemplars {
			l += " " + exemplarText(e)
		}
		lines = append(lines, l)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func tableDump(f *FSM) string {
	var rows []string
	for _, s := range f.table.Load().copy() {
		rows = append(rows, fmt.Sprintf("%06d %d %s", s.id, s.lastT, s.labels))
	}
	slices.Sort(rows)
	return fmt.Sprintf("next %d, dropped up to %d\n%s", f.table.Load().nextID, f.dropHorizon, strings.Join(rows, "\n"))
}

// kindDump adds what the model does not know.
func kindDump(f *FSM) string {
	var rows []string
	for _, s := range f.table.Load().copy() {
		rows = append(rows, fmt.Sprintf("%06d %d", s.id, s.kind))
	}
	slices.Sort(rows)
	return fmt.Sprint(f.floor, f.requests.order, rows)
}

// dumpDirectory reads a user snapshot as a stock Prometheus would.
func dumpDirectory(w *twin, dir string) string {
	o := tsdb.DefaultOptions()
	o.RetentionDuration = 0
	db, err := tsdb.Open(dir, nil, nil, o, nil)
	require.NoError(w, err)
	defer db.Close()
	return dumpQueryable(w, db, -1<<50, 1<<50, false)
}
