// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"
)

// stages bring the content of a store into each of its tiers, one after another.
var stages = []struct {
	name string
	do   func(*tester)
}{
	{"active", func(*tester) {}},
	{"frozen", func(x *tester) { x.freeze() }},
	{"block", func(x *tester) { x.flush() }},
	{"merged", func(x *tester) {
		x.fill("later", base+10*partition, 1)
		x.freezeFlush()
		x.mergeAll()
	}},
}

func TestLookup(t *testing.T) {
	for i, stage := range stages {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint(stage.name, " out of order: ", late), func(t *testing.T) {
				x := manual(t)
				x.fill("a", base, 5)
				if late {
					x.add("a", base+90_000, 9)
					x.add("a", base-90_000, 8)
				}
				for _, s := range stages[:i+1] {
					s.do(x)
				}
				find := func(name string, ts int64) any {
					for _, r := range []*Ref{nil, x.refs["a"], {}} {
						if name != "a" && r != nil && r.gen != 0 {
							continue // the Ref is of another series
						}
						got, found, err := x.Lookup(r, series(name), ts)
						require.NoError(t, err)
						if !found {
							return nil
						}
						require.Equal(t, ts, got.T)
						return got.V
					}
					return nil
				}
				require.Equal(t, 3.0, find("a", base+180_000))
				require.Nil(t, find("a", base+180_001))
				require.Nil(t, find("a", base-1))
				require.Nil(t, find("a", base+partition))
				require.Nil(t, find("b", base))
				if late {
					require.Equal(t, 9.0, find("a", base+90_000))
					require.Equal(t, 8.0, find("a", base-90_000))
				}
				_, found, err := x.Lookup(nil, labels.FromStrings(model.MetricNameLabel, "a"), base)
				require.NoError(t, err)
				require.False(t, found, "a part of the labels is not the series")

				x.delete("a", base+60_000, base+120_000)
				x.delete("a", base+240_000, math.MaxInt64)
				for range 2 { // in the tier of the delete, and a tier on
					require.Nil(t, find("a", base+60_000))
					require.Nil(t, find("a", base+120_000))
					require.Nil(t, find("a", base+240_000))
					require.Equal(t, 0.0, find("a", base))
					require.Equal(t, 3.0, find("a", base+180_000))
					x.freezeFlush()
				}
				x.add("a", base+60_000, 77)
				require.Equal(t, 77.0, find("a", base+60_000), "written after the delete")
				x.freezeFlush()
				require.Equal(t, 77.0, find("a", base+60_000))
			})
		}
	}
}

// A Ref of a former memtable is renewed: heads number their series from 1 again.
func TestStaleRef(t *testing.T) {
	x := manual(t)
	x.add("a", base, 1)
	x.add("b", base, 2)
	x.freeze()
	x.add("b", base+60_000, 3) // gets the number that a had
	x.add("a", base+60_000, 4)
	require.Equal(t, "a: 0=1 1=4\nb: 0=2 1=3\n", x.all())
	got, found, err := x.Lookup(x.refs["a"], series("b"), base)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, 2.0, got.V)
}

// A query keeps its view and its files through everything, and lets go of them.
func TestQueryOutlivesTiers(t *testing.T) {
	x := manual(t)
	x.fill("a", base, 3)
	x.freezeFlush()
	x.fill("a", base+1800_000, 3)
	x.freeze()
	x.fill("a", base+3600_000, 3)
	x.add("a", base+3590_000, 7) // makes the head own files
	want := x.all()
	q, err := x.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)

	x.freezeFlush()
	require.Equal(t, want, dump(t, q), "after freeze and flush")
	x.fill("z", base+5*partition, 1)
	x.freezeFlush()
	require.Positive(t, x.mergeAll())
	require.Equal(t, want, dump(t, q), "after a merge")
	x.delete("a", math.MinInt64, math.MaxInt64)
	require.Equal(t, want, dump(t, q), "after a delete")
	require.NoError(t, x.Clean(t.Context()))
	require.Equal(t, want, dump(t, q), "after a clean")
	x.SetCutoff(base + 100*partition)
	require.NoError(t, x.Reset("", nil, NoTime, NoTime))
	require.Equal(t, want, dump(t, q), "after a reset")
	require.Empty(t, x.all())
	require.Greater(t, len(x.live()), 2, "the query holds files")

	require.NoError(t, q.Close())
	require.NoError(t, q.Close(), "a second time does no harm")
	x.noLeftovers()
}

// A snapshot holds its moment whatever comes after.
func TestSnapshotOfTheMoment(t *testing.T) {
	x := manual(t)
	x.fill("a", base, 3)
	x.fill("b", base, 3)
	x.freezeFlush()
	x.delete("a", base, base) // a block with tombstones
	x.fill("a", base+partition, 3)
	x.freeze()
	x.delete("a", base+partition, base+partition) // a frozen memtable with deletes
	x.fill("a", base+2*partition, 2)
	want := x.all()
	snap, err := x.Snapshot()
	require.NoError(t, err)

	x.delete("a", base+60_000, base+partition+60_000)
	x.flush()
	x.delete("b", math.MinInt64, math.MaxInt64)
	require.NoError(t, x.Clean(t.Context()))
	x.mergeAll()
	x.SetCutoff(base + 100*partition)
	require.Empty(t, x.all())

	for range 2 { // a Persist may be tried again
		dst := t.TempDir()
		files, err := snap.Persist(t.Context(), dst)
		require.NoError(t, err)
		for _, f := range files {
			require.NoError(t, f.Check(dst, true, nil))
		}
		y := openStore(t, Options{Manual: true})
		require.NoError(t, y.Reset(dst, files, NoTime, base+2*partition))
		require.Equal(t, want, y.all())
		x.delete("a", math.MinInt64, math.MaxInt64)
		y.delete("b", math.MinInt64, math.MaxInt64) // must not reach the snapshot either
	}
	snap.Release()
	snap.Release()
	x.noLeftovers()
}

// Reset takes the memtables of a snapshot out of the flusher's hands: Persist
// must not wait for it for ever.
func TestSnapshotOutlivesReset(t *testing.T) {
	for _, background := range []bool{false, true} {
		x := openStore(t, Options{Manual: !background, FreezeSpan: 1000 * time.Hour})
		for i := range 6 {
			for k := range 50 {
				x.fill(fmt.Sprint("a", k), base+int64(i)*3600_000, 20)
			}
			x.freeze()
		}
		want := x.all()
		snap, err := x.Snapshot()
		require.NoError(t, err)
		require.NoError(t, x.Reset("", nil, NoTime, NoTime))
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		dst := t.TempDir()
		files, err := snap.Persist(ctx, dst)
		require.NoError(t, err)
		cancel()
		snap.Release()
		x.noLeftovers()
		require.NoError(t, x.Reset(dst, files, NoTime, NoTime))
		require.Equal(t, want, x.all())
	}
}

// A reset may bring back the very blocks that a flush under way is about to install:
// the flush must not take them for its own.
func TestResetWhileFlushing(t *testing.T) {
	x := manual(t)
	x.fill("a", base, 10)
	snap, err := x.Snapshot()
	require.NoError(t, err)
	dir := t.TempDir()
	files, err := snap.Persist(t.Context(), dir)
	require.NoError(t, err)
	snap.Release()

	m := x.frozen[0]
	m.acquire() // as FlushOne does before it writes
	require.NoError(t, x.Reset(dir, files, NoTime, x.maxT))
	require.NoError(t, x.installFlushed(m, m.raw))
	m.release()

	snap, err = x.Snapshot()
	require.NoError(t, err)
	defer snap.Release()
	_, err = snap.Persist(t.Context(), t.TempDir())
	require.NoError(t, err)
}

// A clean snapshot is for a stock Prometheus, which knows neither our cutoff nor
// two tombstones of one series.
func TestPersistClean(t *testing.T) {
	x := manual(t)
	for i := range int64(3) {
		x.fill("a", base+i*partition, 5)
		x.fill("b", base+i*partition, 5)
		x.freezeFlush()
	}
	x.delete("a", base+partition, base+partition)
	x.delete("a", base+partition+120_000, base+partition+180_000)
	x.delete("b", base+2*partition, base+3*partition) // the whole of b in a block
	x.fill("a", base+3*partition, 5)
	x.freeze()
	x.delete("a", base+3*partition, base+3*partition+60_000)
	x.SetCutoff(base + partition + 60_000)
	want := x.all()
	snap, err := x.Snapshot()
	require.NoError(t, err)
	dst := t.TempDir()
	files, err := snap.PersistClean(t.Context(), dst)
	require.NoError(t, err)
	snap.Release()
	require.Len(t, files, 3)
	for _, f := range files {
		require.NoError(t, f.Check(dst, true, nil))
		b, err := tsdb.OpenBlock(nil, filepath.Join(dst, f.ULID.String()), nil, nil)
		require.NoError(t, err)
		require.Zero(t, b.Meta().Stats.NumTombstones)
		require.NoError(t, b.Close())
	}
	o := tsdb.DefaultOptions()
	o.RetentionDuration = 0
	db, err := tsdb.Open(dst, nil, nil, o, nil)
	require.NoError(t, err)
	q, err := db.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	require.Equal(t, want, dump(t, q))
	require.NoError(t, q.Close())
	require.NoError(t, db.Close())
}

func TestPersistIsCancelled(t *testing.T) {
	x := manual(t)
	x.fill("a", base, 3)
	x.freezeFlush()
	snap, err := x.Snapshot()
	require.NoError(t, err)
	defer snap.Release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = snap.Persist(ctx, t.TempDir())
	require.ErrorIs(t, err, context.Canceled)
	_, err = snap.Persist(t.Context(), filepath.Join(t.TempDir(), "absent", "below"))
	require.NoError(t, err, "directories are made")
}

// A limit counts series that have samples, wherever the empty ones stand.
func TestSelectLimit(t *testing.T) {
	x := manual(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		x.add(name, base, 1)
	}
	x.freeze()
	require.NoError(t, x.Delete(base, base, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, "a")}))
	q, err := x.Querier(base, base)
	require.NoError(t, err)
	defer q.Close()
	hints := &promstorage.SelectHints{Start: base, End: base, Func: "series", Limit: 2}
	set := q.Select(t.Context(), true, hints, labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".+"))
	var got []string
	for set.Next() {
		got = append(got, set.At().Labels().Get(model.MetricNameLabel))
	}
	require.NoError(t, set.Err())
	require.Equal(t, []string{"b", "c"}, got)
}
