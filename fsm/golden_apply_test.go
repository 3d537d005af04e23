// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

type (
	chunkRef = chunks.HeadSeriesRef
	sample   = storage.Sample
)

func sampleLine(list int, ref chunkRef, x sample) string {
	switch {
	case x.H != nil:
		return fmt.Sprintf("%d %d %d int %d %v", list, ref, x.T, x.H.CounterResetHint, spell(*x.H))
	case x.FH != nil:
		return fmt.Sprintf("%d %d %d float %d %v", list, ref, x.T, x.FH.CounterResetHint, spell(*x.FH))
	default:
		return fmt.Sprintf("%d %d %d %x", list, ref, x.T, math.Float64bits(x.V))
	}
}

// spell shows a histogram field by field; nil and empty lists look alike.
func spell(h any) string { return fmt.Sprintf("%#v", h) }

func exemplarLine(list int, x record.RefExemplar) string {
	return fmt.Sprintf("%d %d %d exemplar %x %s", list, x.Ref, x.T, math.Float64bits(x.V), x.Labels)
}

func selectorText(d Delete) string {
	var sb strings.Builder
	for _, ms := range d.Selectors {
		fmt.Fprintln(&sb, ms)
	}
	return sb.String()
}

// stops applies an entry to a fresh state machine, which must stop for it.
func stops(t *testing.T, entry []byte, says string) {
	t.Helper()
	f := newFSM(t, "")
	l := newLog(f)
	l.apply(t, goldenFresh().encode())
	before := dump(t, f)
	r := f.Apply(2, 1, entry)
	require.Contains(t, r.Err, says)
	require.EqualValues(t, 2, r.Index)
	select {
	case <-f.Failed():
	default:
		t.Fatal("the state machine goes on")
	}
	require.ErrorIs(t, f.Err(), ErrFormat)
	require.ErrorContains(t, f.Err(), "entry 2")
	require.ErrorContains(t, f.Err(), says)

	r = f.Apply(3, 1, goldenAppend().encode())
	require.Contains(t, r.Err, says, "later entries tell why they are not applied")
	require.Equal(t, before, dump(t, f), "later entries have no effect")
	_, err := f.Snapshot()
	require.ErrorIs(t, err, ErrFormat, "a stopped state machine must not hand out its state")
}

func TestApplyStops(t *testing.T) {
	newer := EncodeNoop()[:entryHead]
	newer[0] = entryVersion + 1
	for name, x := range map[string]struct {
		entry []byte
		says  string
	}{
		"newer version":    {seal(newer), "must be upgraded"},
		"unknown kind":     {seal(newEntry(kindImport + 1)), "must be upgraded"},
		"kind zero":        {seal(newEntry(0)), "must be upgraded"},
		"empty":            {nil, "0 bytes"},
		"too short":        {EncodeNoop()[:5], "5 bytes"},
		"trailing bytes":   {seal(append(newEntry(kindCutoff), 2, 2)), "trailing"},
		"cut payload":      {seal(newEntry(kindCutoff)), "unreadable"},
		"negative setting": {EncodeSettings(Settings{MaxExemplars: -1}), "negative"},
		"unknown section":  {seal(append(newEntry(kindAppend), 0x31, 0, 0, 0, 0)), "unknown section"},
		"cut section":      {seal(append(newEntry(kindAppend), 0x11, 9, 0, 0, 0)), "section 0x11"},
		"cut section head": {seal(append(newEntry(kindAppend), 0x11, 9)), "section head"},
		"section twice":    {seal(append(newEntry(kindAppend), 0x20, 0, 0, 0, 0, 0x20, 0, 0, 0, 0)), "section 0x20"},
		"no such position": {(&appendEntry{fresh: samples{floats: []record.RefSample{{Ref: 3}}}}).encode(), "the entry brings 0"},
		"bad matcher type": {seal(append(newEntry(kindDelete), 0, 0, 0, 1, 1, 9, 0, 0)), "matcher type"},
	} {
		t.Run(name, func(t *testing.T) { stops(t, x.entry, x.says) })
	}
}

// Any flipped bit is noticed. Apply itself is tried with some, since each needs
// a state machine of its own.
func TestApplyFlippedBit(t *testing.T) {
	entry := goldenAppend().encode()
	for bit := range len(entry) * 8 {
		entry[bit/8] ^= 1 << (bit % 8)
		_, _, err := open(entry)
		require.ErrorIs(t, err, ErrFormat, "bit %d", bit)
		if bit%331 == 0 {
			stops(t, entry, "CRC-32C")
		}
		entry[bit/8] ^= 1 << (bit % 8)
	}
	_, _, err := open(entry)
	require.NoError(t, err)
}

// The golden entries mean something: all samples of both are there.
func TestApplyGolden(t *testing.T) {
	f := newFSM(t, "")
	l := newLog(f)
	l.apply(t, readGolden(t, "settings"))
	l.apply(t, readGolden(t, "append-fresh"))
	r := l.apply(t, readGolden(t, "append"))
	require.Empty(t, r.Refused)
	require.Len(t, strings.Split(strings.TrimSpace(dump(t, f)), "\n"), 12)
	again := l.apply(t, readGolden(t, "append"))
	require.Empty(t, again.Refused, "a retry is harmless")
	require.Equal(t, goldenSettings(), f.Settings())
	require.Equal(t, base+15_000, f.MaxTime())
	require.Equal(t, "Help, with ü.", f.MetricMetadata()["new"][0].Help)
	ex, err := f.exemplars.copy()
	require.NoError(t, err)
	require.Len(t, ex, 2)
}

// Labels that TSDB would refuse must never reach it, whoever proposes them: an
// error there stops every node.
func TestApplyBadLabels(t *testing.T) {
	f := newFSM(t, "")
	l := newLog(f)
	e := goldenFresh()
	for i, pairs := range [][]string{{}, {"b", "x", "a", "x"}, {"a", "x", "a", "y"}, {"a", ""}} {
		var b labels.ScratchBuilder
		for p := range slices.Chunk(pairs, 2) {
			b.Add(p[0], p[1])
		}
		e.series[i].Labels = b.Labels()
	}
	r := l.apply(t, e.encode())
	require.NoError(t, f.Err())
	require.Equal(t, []Refusal{{0, Invalid}, {1, Invalid}, {2, Invalid}, {3, Invalid}, {4, Invalid}}, r.Refused)
	require.EqualValues(t, 2, f.table.Load().n.Load())
	require.Len(t, strings.Split(strings.TrimSpace(dump(t, f)), "\n"), 2)
}
