// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/stretchr/testify/require"
)

// told spells out what a reader has added, by the labels that it told of.
type told struct {
	names map[chunks.HeadSeriesRef]string
	lines []string
}

func (x *told) add(a *Added) {
	for _, s := range a.Series {
		x.names[s.Ref] = s.Labels.String()
	}
	for _, s := range a.Floats {
		x.lines = append(x.lines, fmt.Sprint(x.names[s.Ref], s.T, s.V))
	}
	for _, s := range a.Histograms {
		x.lines = append(x.lines, fmt.Sprint(x.names[s.Ref], s.T, s.H))
	}
	for _, s := range a.FloatHistograms {
		x.lines = append(x.lines, fmt.Sprint(x.names[s.Ref], s.T, s.FH))
	}
	for _, s := range a.Exemplars {
		x.lines = append(x.lines, fmt.Sprint(x.names[s.Ref], s.T, s.V, s.Labels))
	}
}

func readAll(t *testing.T, r *LogReader, from int, entries [][]byte) (x told, refused, lost int) {
	t.Helper()
	x.names = map[chunks.HeadSeriesRef]string{}
	for i, e := range entries {
		a, err := r.Read(uint64(from+i), e)
		require.NoError(t, err)
		x.add(a)
		refused += a.Refused
		lost += a.Lost
	}
	return x, refused, lost
}

func line(series string, ts int64, v float64) string { return fmt.Sprint(name(series).String(), ts, v) }

// The reader tells what was accepted, of every type, whether its series came by id or by labels.
func TestLogReaderTellsAll(t *testing.T) {
	f, l := alone(t)
	l.apply(t, goldenFresh().encode())
	l.apply(t, EncodeNoop())
	l.apply(t, goldenAppend().encode())
	got, refused, lost := readAll(t, f.NewLogReader(), 1, l.entries)
	require.Zero(t, lost)
	require.Zero(t, refused)
	want := told{names: map[chunks.HeadSeriesRef]string{}}
	for _, e := range []*appendEntry{goldenFresh(), goldenAppend()} {
		for i, ss := range []samples{e.known, e.fresh} {
			for j := range 6 {
				if i == 0 {
					want.names[refOf(uint64(j+1))] = labels.FromStrings("__name__", "old", "n", string(rune('a'+j))).String()
				} else {
					want.names[refOf(uint64(j))] = e.series[j].Labels.String()
				}
			}
			want.add(&Added{
				Floats: ss.floats, Exemplars: ss.exemplars,
				Histograms: slices.Concat(ss.histograms, ss.customHistograms), FloatHistograms: slices.Concat(ss.floatHistograms, ss.customFloatHists),
			})
		}
	}
	slices.Sort(want.lines)
	slices.Sort(got.lines)
	require.Equal(t, want.lines, got.lines)
}

func TestLogReaderLeavesRefusedSamplesOut(t *testing.T) {
	f, l := alone(t)
	put(t, f, l, name("x"), base, 1)
	e := &appendEntry{series: []record.RefSeries{refSeries(0, name("y"))}}
	e.known.floats = []record.RefSample{{Ref: 1, T: base, V: 2}, {Ref: 1, T: base + 1, V: 3}, {Ref: 1, T: base - 10*3_600_000, V: 4}}
	e.fresh.floats = []record.RefSample{{Ref: 0, T: base - 10*3_600_000, V: 5}, {Ref: 0, T: base, V: 6}}
	r := l.apply(t, e.encode())
	require.Len(t, r.Refused, 3)
	e.known.floats[1] = record.RefSample{Ref: 99, T: base + 2, V: 7} // no such series: refused as a whole
	require.True(t, l.apply(t, e.encode()).Unknown)

	got, refused, lost := readAll(t, f.NewLogReader(), 1, l.entries)
	require.Equal(t, []string{line("x", base, 1), line("x", base+1, 3), line("y", base, 6)}, got.lines)
	require.Equal(t, 3+5, refused)
	require.Zero(t, lost)

	// The verdicts come again with the replay.
	g := newFSM(t, "")
	for i, e := range l.entries {
		g.Apply(uint64(i+1), 1, e)
		g.Publish(uint64(i+1), 1)
	}
	again, refused, _ := readAll(t, g.NewLogReader(), 1, l.entries)
	require.Equal(t, got.lines, again.lines)
	require.Equal(t, 3+5, refused)
}

// A reader that is behind knows dropped series if it has met them, and counts what it cannot name.
func TestLogReaderOfDroppedSeries(t *testing.T) {
	f, l := alone(t)
	put(t, f, l, name("x"), base, 1)
	early := f.NewLogReader()
	readAll(t, early, 1, l.entries)
	l.apply(t, (&appendEntry{known: samples{floats: []record.RefSample{{Ref: 1, T: base + 1, V: 2}}}}).encode())
	put(t, f, l, name("y"), base+10*3_600_000, 3)
	l.apply(t, EncodeCutoff(base+3*3_600_000))
	require.Nil(t, f.table.Load().byID(1))

	got, _, lost := readAll(t, early, 3, l.entries[2:3])
	require.Zero(t, lost)
	require.Len(t, got.lines, 1)
	_, _, lost = readAll(t, f.NewLogReader(), 3, l.entries[2:])
	require.Equal(t, 1, lost)

	for range 3 {
		require.Nil(t, early.Forget(3), "it is behind")
	}
	require.Len(t, early.known, 1)
	readAll(t, early, 4, l.entries[3:])
	left := early.Forget(5)
	require.Len(t, left, 1)
	require.Equal(t, name("y"), left[0].Labels)
	require.Nil(t, early.Forget(5), "nothing more to forget")
}

func TestLogReaderTellsMetadata(t *testing.T) {
	f, l := alone(t)
	e := goldenFresh()
	e.series[0].Labels, e.metadata = name("h_bucket"), []familyMetadata{{"h", metadata.Metadata{Type: "histogram", Help: "one"}}}
	l.apply(t, e.encode())
	r := f.NewLogReader()
	describe := func(index int) []record.RefMetadata {
		a, err := r.Read(uint64(index), l.entries[index-1])
		require.NoError(t, err)
		return slices.Clone(a.Metadata)
	}
	got := describe(2)
	require.Len(t, got, 1)
	require.Equal(t, "one", got[0].Help)
	e.metadata[0].Help = "two"
	l.apply(t, e.encode())
	require.Equal(t, "two", describe(3)[0].Help)
	l.apply(t, e.encode())
	require.Empty(t, describe(4))
}

// Refusals beyond the bound are forgotten, oldest entries first.
func TestVerdictsAreBounded(t *testing.T) {
	var l verdictLog
	many := make([]Refusal, maxVerdicts/4)
	for i := range uint64(10) {
		l.add(&Result{Index: i + 1, Refused: many})
		l.add(&Result{Index: i + 1, Refused: many}) // a replay
	}
	require.LessOrEqual(t, l.size, maxVerdicts)
	require.Empty(t, l.of(1).refused)
	require.Len(t, l.of(10).refused, len(many))
	require.Len(t, l.known, 4)
}
