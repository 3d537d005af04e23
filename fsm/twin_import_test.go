// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/deucaliondb/deucalion/storage"
)

// importFiles has the files of all imports in one directory.
type importFiles string

func (d importFiles) Ensure(_ context.Context, _ uint64, x Import) (string, error) {
	dir := filepath.Join(string(d), x.ID)
	for _, b := range x.Blocks {
		if err := b.Check(dir, true, nil); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// stepImport imports blocks: some of their samples are there already, some series are new, some samples are older
// than the cutoff, and the blocks may overlap.
func (w *twin) stepImport() {
	w.n++
	x := Import{ID: fmt.Sprintf("%016x", w.n)}
	var blocks []map[int]map[int64]storage.Sample
	for range rapid.IntRange(1, 3).Draw(w.T, "blocks") {
		block := w.drawBlock()
		p := prepare(w, w.replicas[0].f, filepath.Join(string(w.imports), x.ID), block)
		x.Blocks = append(x.Blocks, p.BlockFiles)
		blocks = append(blocks, block)
	}
	for _, r := range w.replicas {
		if w.chance(60, "look ahead") {
			require.NoError(w, r.f.LookAhead(w.Context(), filepath.Join(string(w.imports), x.ID), x))
		}
	}
	if w.chance(50, "something between") {
		switch rapid.IntRange(0, 3).Draw(w.T, "what") {
		case 0:
			w.stepDelete()
		case 1:
			w.stepCutoff()
		default:
			w.previous = append(w.drawSamples(), w.conflicts(blocks)...)
			w.stepAppend(slices.Clone(w.previous))
		}
		for _, r := range w.replicas {
			w.disturb(r)
		}
	}
	e := EncodeImport(x)
	w.model.next(w, func(m *twinModel) { m.addBlocks(blocks) })
	w.apply(e, nil, false)
	if w.chance(30, "retry") { // must have no effect
		w.apply(e, nil, false)
	}
	if w.chance(70, "written afterwards") {
		w.stepAppend(w.conflicts(blocks))
	}
}

// conflicts are writes at some of the times of the blocks.
func (w *twin) conflicts(blocks []map[int]map[int64]storage.Sample) (out []genSample) {
	for s, xs := range blocks[0] {
		for t := range xs {
			out = append(out, genSample{s, storage.Sample{T: t, V: 77}})
		}
	}
	slices.SortFunc(out, func(a, b genSample) int { return cmp.Or(a.series-b.series, cmp.Compare(a.sample.T, b.sample.T)) })
	return out[:(len(out)+1)/2]
}

func (w *twin) drawBlock() map[int]map[int64]storage.Sample {
	block := map[int]map[int64]storage.Sample{}
	end := w.now - rapid.Int64Range(0, 500*minute).Draw(w.T, "end")
	if w.chance(40, "up to now") {
		end = w.now + rapid.Int64Range(0, 2*minute).Draw(w.T, "ahead")
	}
	old := w.chance(60, "old")
	for _, limit := range []int64{w.model.floor(), w.model.cutoff} {
		if old && limit > storage.NoTime/2 && w.chance(40, "below the limit") {
			end = min(end, limit-1-rapid.Int64Range(0, 100*minute).Draw(w.T, "below"))
		}
	}
	span := rapid.Int64Range(0, 200*minute).Draw(w.T, "span")
	put := func(s int, t int64) {
		if block[s] == nil {
			block[s] = map[int64]storage.Sample{}
		}
		block[s][t] = w.drawSample(s, t)
	}
	for range rapid.IntRange(1, 8).Draw(w.T, "series in block") {
		s := rapid.IntRange(0, numSeries-1).Draw(w.T, "series")
		for range rapid.IntRange(1, 12).Draw(w.T, "samples") {
			put(s, end-rapid.Int64Range(0, span).Draw(w.T, "back"))
		}
		there := slices.Sorted(maps.Keys(w.model.samples[s]))
		if old {
			there = slices.DeleteFunc(there, func(t int64) bool { return t > end })
		}
		for range min(len(there), rapid.IntRange(0, 6).Draw(w.T, "taken")) {
			put(s, there[rapid.IntRange(0, len(there)-1).Draw(w.T, "which")])
		}
	}
	return block
}

// prepare writes a block as promtool does, and makes it one that can be imported.
func prepare(t interface {
	require.TestingT
	Context() context.Context
}, f *FSM, dst string, block map[int]map[int64]storage.Sample,
) storage.Prepared {
	src, err := os.MkdirTemp(filepath.Dir(dst), "foreign-")
	require.NoError(t, err)
	defer os.RemoveAll(src)
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), src, math.MaxInt64/4)
	require.NoError(t, err)
	type one struct {
		series int
		storage.Sample
	}
	var all []one
	for s, xs := range block {
		for _, x := range xs {
			all = append(all, one{s, x})
		}
	}
	slices.SortFunc(all, func(a, b one) int { return cmp.Or(cmp.Compare(a.T, b.T), a.series-b.series) })
	for _, x := range all { // one by one: a commit would order the samples of a series by type
		app := w.AppenderV2(t.Context())
		_, err := app.Append(0, seriesLabels(x.series), 0, x.T, x.V, x.H, x.FH, promstorage.AppendV2Options{})
		require.NoError(t, err)
		require.NoError(t, app.Commit())
	}
	id, err := w.Flush(t.Context())
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, os.MkdirAll(dst, 0o777))
	p, err := f.PrepareImport(t.Context(), filepath.Join(src, id.String()), dst, math.MaxInt64)
	require.NoError(t, err)
	require.EqualValues(t, len(all), p.Samples)
	require.NotEqual(t, id, p.ULID)
	return p
}

// addBlocks adds what is not there.
func (m *twinModel) addBlocks(blocks []map[int]map[int64]storage.Sample) {
	m.happened["blocks imported"]++
	for _, b := range blocks {
		for s, xs := range b {
			for t, x := range xs {
				m.maxT = max(m.maxT, t)
				m.importSample(s, t, text(x))
			}
		}
	}
	dropped := m.dropHorizon
	for _, b := range blocks {
		newest := int64(math.MinInt64)
		for _, xs := range b {
			newest = max(newest, slices.Max(slices.Collect(maps.Keys(xs))))
		}
		if newest < m.floor() {
			for _, row := range m.table {
				row.lastT = max(row.lastT, newest)
			}
			dropped = max(dropped, newest)
			m.happened["old block imported"]++
		}
		for _, s := range slices.SortedFunc(maps.Keys(b), func(a, b int) int { return labels.Compare(seriesLabels(a), seriesLabels(b)) }) {
			last := slices.Max(slices.Collect(maps.Keys(b[s])))
			if old, ok := m.lastT[s]; !ok || last > old {
				m.lastT[s] = last
				m.happened["newest sample of a series imported"]++
			}
			if newest < m.floor() {
				continue
			}
			row := m.table[s]
			if row == nil && last < m.floor() {
				dropped = max(dropped, last)
				continue
			}
			if row == nil {
				row = &modelSeries{m.nextID, m.dropHorizon}
				m.table[s] = row
				m.nextID++
				m.happened["series came with an import"]++
			}
			row.lastT = max(row.lastT, last)
		}
	}
	m.dropHorizon = dropped
}

func (m *twinModel) importSample(s int, t int64, v string) {
	old, there := m.samples[s][t]
	switch {
	case there && old != v:
		m.happened["imported sample lost to another value"]++
	case t < m.cutoff:
		m.happened["imported sample below the cutoff"]++
	case !there:
		if m.samples[s] == nil {
			m.samples[s], m.lives[s] = map[int64]string{}, map[int64][]life{}
		}
		m.samples[s][t] = v
		m.lives[s][t] = append(m.lives[s][t], life{v, m.index, math.MaxInt64})
		m.imported[[2]int64{int64(s), t}] = true
	}
}
