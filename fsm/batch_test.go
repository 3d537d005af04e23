// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

func alone(t testing.TB) (*FSM, *raftLog) {
	f := newFSM(t, "")
	l := newLog(f)
	l.apply(t, EncodeSettings(Settings{MaxExemplars: 100}))
	return f, l
}

func setWindow(t testing.TB, l *raftLog, d time.Duration) {
	l.apply(t, EncodeSettings(Settings{MaxExemplars: 100, OutOfOrderWindow: d}))
}

func TestBatchVerdicts(t *testing.T) {
	f, l := alone(t)
	x := name("x")
	require.Equal(t, 1, put(t, f, l, x, base, 1).Floats)
	require.Equal(t, 1, put(t, f, l, x, base+60_000, 2).Floats)

	out := commit(t, f, l, func(b *Batch) {
		b.Series(nil, x)
		b.Float(base+30_000, 3)         // out of order
		b.Float(base, 9)                // another value
		b.Float(base+90_000, 4)         // fine
		b.Float(base-3_600_001, 5)      // below the horizon
		b.Refuse(base+1e9, OutOfBounds) // the caller's own
	})
	require.Equal(t, 1, out.Floats)
	require.Equal(t, map[Reason]int{OutOfOrder: 1, Duplicate: 1, TooOld: 1, OutOfBounds: 1}, out.Refused)
	require.Len(t, out.First, 4)
	for _, r := range out.First {
		require.Equal(t, x, r.Labels)
	}
	require.Equal(t, "0=1 60000=2 90000=4", floatsOf(t, f, x))

	setWindow(t, l, 2*time.Hour)
	out = commit(t, f, l, func(b *Batch) {
		b.Series(nil, x)
		b.Float(base+30_000, 3)
		b.Float(base-3_600_001, 5)
		b.Float(base+90_000-7_200_001, 6) // below the window
	})
	require.Equal(t, 2, out.Floats)
	require.Equal(t, map[Reason]int{TooOld: 1}, out.Refused)
	require.Equal(t, "-3600001=5 0=1 30000=3 60000=2 90000=4", floatsOf(t, f, x))
}

// The same verdicts when the log decides, since the proposer's node lags behind.
func TestBatchVerdictsOfTheLog(t *testing.T) {
	f, l := alone(t)
	b := newFSM(t, "")
	l.catchUp(b)
	x := name("x")
	put(t, f, l, x, base, 1)
	put(t, f, l, x, base+60_000, 2)
	put(t, f, l, name("y"), base+3_700_000, 2)
	out := commit(t, b, l, func(b *Batch) {
		b.Series(nil, x)
		b.Float(base+200_000, 4)
		b.Float(base+200_000-1, 4)
		b.Float(base+99_999, 5) // the horizon is at 100 s
		b.Series(nil, labels.FromStrings(model.MetricNameLabel, "z"))
		b.Float(base, 5)
		b.Series(nil, name("y"))
		b.Float(base+3_700_000, 2) // retry
		b.Float(base+3_600_000, 2) // out of order
		b.Histogram(base+3_700_000, tsdbutil.GenerateTestHistogram(1))
	})
	require.Equal(t, 3, out.Floats)
	require.Zero(t, out.Histograms)
	require.Equal(t, map[Reason]int{TooOld: 2, OutOfOrder: 1, Duplicate: 1}, out.Refused)
	require.Equal(t, "0=1 60000=2 199999=4 200000=4", floatsOf(t, f, x))
	require.Nil(t, f.table.Load().byLabels(name("z")), "a refused sample creates no series")
}

func TestBatchRetry(t *testing.T) {
	f, l := alone(t)
	fill := func(b *Batch) {
		b.Series(nil, name("x"))
		b.Float(base, 1)
		b.Float(base+1, math.NaN())
		b.Series(nil, name("h"))
		b.Histogram(base, tsdbutil.GenerateTestHistogram(3))
		b.FloatHistogram(base+3, tsdbutil.GenerateTestCustomBucketsFloatHistogram(3))
	}
	first := commit(t, f, l, fill)
	require.Equal(t, 2, first.Floats)
	require.Equal(t, 2, first.Histograms)
	n := l.len()
	for range 2 { // also once the samples are in blocks
		reads := l.reads
		out := commit(t, f, l, fill)
		require.Equal(t, 2, out.Floats)
		require.Equal(t, 2, out.Histograms)
		require.Empty(t, out.Refused)
		require.Equal(t, n, l.len(), "a retry does not go into the log")
		require.Equal(t, reads+1, l.reads)
		require.EqualValues(t, n, out.Index, "a read at Index sees the samples")
		require.NoError(t, f.Storage().Freeze())
		_, err := f.Storage().FlushOne()
		require.NoError(t, err)
	}
}

// A duplicate that the node's own state decides is confirmed like a retry.
func TestBatchDuplicateIsConfirmed(t *testing.T) {
	f, l := alone(t)
	put(t, f, l, name("x"), base, 1)
	n := l.len()
	out := put(t, f, l, name("x"), base, 2)
	require.Equal(t, map[Reason]int{Duplicate: 1}, out.Refused)
	require.Equal(t, n, l.len())
	require.Equal(t, 1, l.reads)
}

// The lagging node has the sample and has not applied the delete: a write that
// was sent after the delete must be stored.
func TestBatchRetryAfterDelete(t *testing.T) {
	for _, kind := range []string{"delete", "cutoff"} {
		t.Run(kind, func(t *testing.T) {
			f, l := alone(t)
			setWindow(t, l, 24*time.Hour)
			b := newFSM(t, "")
			put(t, f, l, name("x"), base, 1)
			put(t, f, l, name("x"), base+7_200_000, 1)
			l.catchUp(b)
			erase := EncodeDelete(Delete{ID: "d", Selectors: [][]*labels.Matcher{equals(model.MetricNameLabel, "x")}, Mint: base, Maxt: base})
			want := "0=1 7200000=1"
			if kind == "cutoff" {
				erase, want = EncodeCutoff(base+1), "7200000=1"
			}
			l.apply(t, erase)
			l.onRead = func() { l.catchUp(b) }
			n := l.len()
			out := put(t, b, l, name("x"), base, 1)
			require.Equal(t, n+1, l.len(), "the sample must go into the log")
			require.Equal(t, want, floatsOf(t, f, name("x")))
			if kind == "cutoff" {
				require.Equal(t, map[Reason]int{TooOld: 1}, out.Refused)
			} else {
				require.Equal(t, 1, out.Floats)
			}
			l.catchUp(b)
			require.Equal(t, dump(t, f), dump(t, b))
		})
	}
}

func TestBatchDuplicatesInRequest(t *testing.T) {
	f, l := alone(t)
	put(t, f, l, name("known"), base-1, 0)
	for _, series := range []string{"known", "fresh"} {
		out := commit(t, f, l, func(b *Batch) {
			for range 2 { // a request may name a series twice
				b.Series(nil, name(series))
				b.Float(base+2, 5)
				b.Float(base, 1)
				b.Float(base, 1)
				b.Float(base, 2)
				b.Histogram(base, tsdbutil.GenerateTestHistogram(1))
				b.FloatHistogram(base+3, tsdbutil.GenerateTestFloatHistogram(1))
				b.FloatHistogram(base+3, tsdbutil.GenerateTestFloatHistogram(2))
			}
		})
		require.Equal(t, 6, out.Floats, "accepted ones, retries within the request included")
		require.Equal(t, 2, out.Histograms)
		require.Equal(t, map[Reason]int{Duplicate: 6}, out.Refused)
		require.Len(t, out.First, 6)
		require.Contains(t, dump(t, f), `{__name__="`+series+`"}:`)
	}
	require.Equal(t, "0=1 2=5", floatsOf(t, f, name("fresh")), "the first wins")
}

// A series that becomes known while the batch is filled is one series all the
// same.
func TestBatchSeriesBecomesKnown(t *testing.T) {
	f, l := alone(t)
	setWindow(t, l, time.Hour)
	out := commit(t, f, l, func(b *Batch) {
		b.Series(nil, name("x"))
		b.Float(base+10, 1)
		put(t, f, l, name("x"), base, 1)
		b.Series(nil, name("x"))
		b.Float(base+10, 2)
		b.Float(base+20, 1)
	})
	require.Equal(t, 2, out.Floats)
	require.Equal(t, map[Reason]int{Duplicate: 1}, out.Refused)
	require.Equal(t, "0=1 10=1 20=1", floatsOf(t, f, name("x")))
}

func TestBatchUnknownIDs(t *testing.T) {
	f, l := alone(t)
	b := newFSM(t, "")
	for _, s := range []string{"x", "y", "h"} {
		put(t, f, l, name(s), base, 1)
	}
	l.catchUp(b)
	put(t, f, l, name("late"), base+7_200_000, 1)
	l.apply(t, EncodeCutoff(storage.NoTime)) // drops the idle series
	require.EqualValues(t, 1, f.table.Load().n.Load())
	out := commit(t, b, l, func(b *Batch) {
		b.Series(nil, name("x"))
		b.Float(base+7_200_000, 2)
		b.Exemplar(exemplar.Exemplar{Labels: labels.FromStrings("t", "1"), Ts: base + 7_200_000, Value: 1})
		b.Series(nil, name("h"))
		b.Histogram(base+7_200_000, tsdbutil.GenerateTestHistogram(1))
		b.Series(nil, name("new"))
		b.Float(base+7_200_000, 3)
		b.Series(nil, name("y"))
		b.Float(base+1000, 3) // meanwhile too old
	})
	require.Equal(t, 2, out.Floats)
	require.Equal(t, 1, out.Histograms)
	require.Equal(t, map[Reason]int{TooOld: 1}, out.Refused)
	require.Equal(t, name("y"), out.First[0].Labels)
	require.Equal(t, "0=1 7200000=2", floatsOf(t, f, name("x")))
	require.Equal(t, "7200000=3", floatsOf(t, f, name("new")))
	ex, err := f.exemplars.copy()
	require.NoError(t, err)
	require.Len(t, ex, 1)
}

// The ids vanish, and the batch has the same series with labels too.
func TestBatchUnknownIDAndLabels(t *testing.T) {
	f, l := alone(t)
	put(t, f, l, name("x"), base, 1)
	out := commit(t, f, l, func(b *Batch) {
		b.Series(nil, name("x"))
		b.Float(base+7_200_000, 2)
		put(t, f, l, name("late"), base+7_200_000, 1)
		l.apply(t, EncodeCutoff(storage.NoTime))
		b.Series(nil, name("x")) // no longer in the table
		b.Float(base+7_200_000, 3)
		b.Float(base+7_200_001, 4)
	})
	require.Equal(t, 2, out.Floats)
	require.Equal(t, map[Reason]int{Duplicate: 1}, out.Refused)
	require.EqualValues(t, 2, f.table.Load().n.Load(), "one id a label set")
	require.Len(t, f.table.Load().copy(), 2)
	require.Contains(t, floatsOf(t, f, name("x")), "7200001=4")
}

func TestBatchUnknownAgainAndAgain(t *testing.T) {
	f, l := alone(t)
	put(t, f, l, name("x"), base, 1)
	b := f.NewBatch()
	b.Series(nil, name("x"))
	b.Float(base+1, 2)
	_, err := b.Commit(t.Context(), alwaysUnknown{})
	require.ErrorIs(t, err, errUnknownIDs)
	b.Release()
}

type alwaysUnknown struct{}

func (alwaysUnknown) Propose(context.Context, []byte) (Result, error) {
	return Result{Unknown: true}, nil
}

func (alwaysUnknown) ReadIndex(context.Context) (uint64, error) { return 0, errors.New("unused") }

func (refusing) Propose(context.Context, []byte) (Result, error) { return Result{Err: "stopped"}, nil }
func (refusing) ReadIndex(context.Context) (uint64, error)       { return 0, nil }
