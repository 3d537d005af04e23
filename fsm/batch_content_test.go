// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"errors"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

func TestBatchLabels(t *testing.T) {
	f, l := alone(t)
	var unsorted, twice labels.ScratchBuilder
	unsorted.Add("b", "1")
	unsorted.Add("a", "1")
	twice.Add("a", "1")
	twice.Add("a", "2")
	out := commit(t, f, l, func(b *Batch) {
		b.Series(nil, labels.FromStrings(model.MetricNameLabel, "x", "empty", ""))
		require.Equal(t, name("x"), b.Labels())
		b.Float(base, 1)
		for _, ls := range []labels.Labels{unsorted.Labels(), twice.Labels(), labels.EmptyLabels(), labels.FromStrings("empty", "")} {
			b.Series(nil, ls)
			b.Float(base, 2)
			b.Histogram(base, tsdbutil.GenerateTestHistogram(1))
			b.Exemplar(exemplar.Exemplar{Ts: base})
		}
	})
	require.Equal(t, 1, out.Floats)
	require.Zero(t, out.Exemplars)
	require.Equal(t, map[Reason]int{Invalid: 8}, out.Refused)
	require.Len(t, out.First, 8)
	require.Equal(t, "0=1", floatsOf(t, f, name("x")))
	require.EqualValues(t, 1, f.table.Load().n.Load())
}

func TestBatchInvalidHistograms(t *testing.T) {
	f, l := alone(t)
	n := l.len()
	out := commit(t, f, l, func(b *Batch) {
		b.Series(nil, name("x"))
		b.Histogram(base, &histogram.Histogram{Schema: 100})
		b.Histogram(base, &histogram.Histogram{Schema: 20, Count: 1, ZeroCount: 1}) // known, but not for storage
		b.FloatHistogram(base, &histogram.FloatHistogram{PositiveSpans: []histogram.Span{{Length: 3}}})
	})
	require.Equal(t, map[Reason]int{Invalid: 3}, out.Refused)
	require.Equal(t, n, l.len())
}

func TestBatchExemplarsAndMetadata(t *testing.T) {
	f, l := alone(t)
	m := metadata.Metadata{Type: "gauge", Help: "help"}
	fill := func(b *Batch) {
		b.Series(nil, name("x"))
		b.Float(base, 1)
		b.Exemplar(exemplar.Exemplar{Labels: labels.FromStrings("trace", "1"), Ts: base, Value: 7})
		b.Metadata("x", m)
		b.Metadata("", m)
	}
	require.Equal(t, 1, commit(t, f, l, fill).Exemplars)
	require.Equal(t, map[string][]metadata.Metadata{"x": {m}}, f.MetricMetadata())
	commit(t, f, l, fill)
	ex, err := f.exemplars.copy()
	require.NoError(t, err)
	require.Len(t, ex, 1)

	n := l.len()
	commit(t, f, l, func(b *Batch) { b.Metadata("x", m) })
	require.Equal(t, n, l.len(), "known metadata is not written again")
	commit(t, f, l, func(b *Batch) { b.Metadata("y", m) })
	require.Equal(t, n+1, l.len())
	require.Contains(t, f.MetricMetadata(), "y")

	l.apply(t, EncodeSettings(Settings{}))
	require.Zero(t, commit(t, f, l, fill).Exemplars, "no exemplars without a place for them")
}

func TestBatchErrors(t *testing.T) {
	f, l := alone(t)
	put(t, f, l, name("x"), base, 1)
	no := errors.New("no leader")
	try := func(ctx context.Context, p Proposer, ts int64) (Outcome, error) {
		b := f.NewBatch()
		defer b.Release()
		b.Series(nil, name("x"))
		b.Float(ts, 1)
		return b.Commit(ctx, p)
	}
	l.refuse = no
	out, err := try(t.Context(), l, base+1)
	require.ErrorIs(t, err, no)
	require.Equal(t, Outcome{}, out)
	_, err = try(t.Context(), alwaysUnknown{}, base)
	require.ErrorContains(t, err, "unused", "an error of ReadIndex")

	ahead := &raftLog{leader: f, entries: make([][]byte, 100)} // its index is never applied here
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = try(ctx, ahead, base)
	require.ErrorIs(t, err, context.Canceled)

	_, err = try(t.Context(), refusing{}, base+1)
	require.ErrorContains(t, err, "stopped")
}

// refusing answers like a node whose state machine stopped.
type refusing struct{}
