// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

// decoded returns the appends of a log from index n on.
func decoded(t *testing.T, l *raftLog, n int) []*appendEntry {
	var out []*appendEntry
	for _, b := range l.entries[n:] {
		k, p, err := open(b)
		require.NoError(t, err)
		require.Equal(t, kindAppend, k)
		e := &appendEntry{}
		require.NoError(t, e.decode(p))
		out = append(out, e)
	}
	return out
}

// requireBounded checks the size of entries, and that each series is in one.
func requireBounded(t *testing.T, es []*appendEntry) {
	t.Helper()
	home := map[string]int{}
	for i, e := range es {
		require.LessOrEqual(t, e.known.len()+e.fresh.len(), maxEntrySamples)
		require.LessOrEqual(t, len(e.series), maxEntrySeries)
		count := func(key string) {
			at, ok := home[key]
			if ok && at != i {
				t.Errorf("%s is in entries %d and %d", key, at, i)
			}
			home[key] = i
		}
		_ = each(&e.known, func(r chunkRef, _ sample) error { count(fmt.Sprint(r)); return nil })
		for _, x := range e.known.exemplars {
			count(fmt.Sprint(x.Ref))
		}
		for _, s := range e.series {
			count(s.Labels.String())
		}
	}
}

func TestBatchCutBySamples(t *testing.T) {
	f, l := alone(t)
	setWindow(t, l, time.Hour)
	const series, each = 70, 600 // 42000 samples: three entries
	fill := func(shift int64) func(*Batch) {
		return func(b *Batch) {
			for k := range each {
				for i := range series { // a series' samples lie far apart
					b.Series(nil, labels.FromStrings(model.MetricNameLabel, "m", "i", fmt.Sprint(i)))
					ts := base + shift + int64(each-k)
					switch i % 10 {
					case 7:
						b.Histogram(ts, tsdbutil.GenerateTestHistogram(int64(i)))
					case 8:
						b.FloatHistogram(ts, tsdbutil.GenerateTestFloatHistogram(int64(i)))
					default:
						b.Float(ts, float64(k))
					}
					if k == 0 {
						b.Exemplar(exemplar.Exemplar{Labels: labels.FromStrings("i", fmt.Sprint(i)), Ts: ts, Value: 1})
					}
				}
			}
			b.Metadata("m", metadata.Metadata{Help: fmt.Sprint("help ", shift)})
		}
	}
	for _, shift := range []int64{0, 1000} { // first with labels, then by id
		n := l.len()
		out := commit(t, f, l, fill(shift))
		require.Equal(t, 56*each, out.Floats)
		require.Equal(t, 14*each, out.Histograms)
		require.Equal(t, series, out.Exemplars)
		require.Empty(t, out.Refused)
		es := decoded(t, l, n)
		require.GreaterOrEqual(t, len(es), 3)
		requireBounded(t, es)
	}
	require.Equal(t, 2*series*each, strings.Count(dump(t, f), "="+"")-2*series, "all is stored") // two labels a series
	require.Len(t, f.MetricMetadata()["m"], 2)
	require.EqualValues(t, series, f.table.Load().n.Load())
}

func TestBatchCutBySeries(t *testing.T) {
	f, l := alone(t)
	const series = 2*maxEntrySeries + 500
	n := l.len()
	out := commit(t, f, l, func(b *Batch) {
		for i := range series {
			b.Series(nil, labels.FromStrings(model.MetricNameLabel, "m", "i", fmt.Sprint(i)))
			b.Float(base, float64(i))
		}
	})
	require.Equal(t, series, out.Floats)
	es := decoded(t, l, n)
	require.Len(t, es, 3)
	requireBounded(t, es)
	require.Equal(t, series, strings.Count(dump(t, f), "\n"))
	require.EqualValues(t, series, f.table.Load().n.Load())
}

// One series with more samples than an entry should have stays whole: an entry
// decides on its samples in order.
func TestBatchOneLongSeries(t *testing.T) {
	f, l := alone(t)
	n := l.len()
	out := commit(t, f, l, func(b *Batch) {
		for i := range maxEntrySamples + 100 {
			b.Series(nil, name("long"))
			b.Float(base+int64(i), 1)
		}
		b.Series(nil, name("short"))
		b.Float(base, 1)
	})
	require.Equal(t, maxEntrySamples+101, out.Floats)
	require.Len(t, decoded(t, l, n), 2)
}

// A request that repeats itself costs no more than one that does not.
func TestBatchManyDuplicatesOfKnownSeries(t *testing.T) {
	f, l := alone(t)
	const series = 10_000
	fill := func(ts int64, times int) func(*Batch) {
		return func(b *Batch) {
			for range times {
				for i := range series {
					b.Series(nil, labels.FromStrings(model.MetricNameLabel, "m", "i", fmt.Sprint(i)))
					b.Float(ts, 1)
				}
			}
		}
	}
	commit(t, f, l, fill(base, 1))
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	b := f.NewBatch()
	defer b.Release()
	fill(base+1, 2)(b)
	done := make(chan Outcome, 1)
	go func() {
		out, err := b.Commit(ctx, l)
		if err == nil {
			done <- out
		}
	}()
	select {
	case out := <-done:
		require.Equal(t, 2*series, out.Floats)
	case <-ctx.Done():
		t.Fatal("a commit takes time with the square of the duplicates")
	}
}

func TestSeriesByKey(t *testing.T) {
	f, l := alone(t)
	x := labels.FromStrings(model.MetricNameLabel, "x", "a", "b")
	key := seriesKey(x)
	b := f.NewBatch()
	require.False(t, b.SeriesByKey(key))
	b.Release()
	commit(t, f, l, func(b *Batch) {
		b.Series(key, x)
		b.Float(base, 1)
	})
	commit(t, f, l, func(b *Batch) {
		require.True(t, b.SeriesByKey(key))
		require.Equal(t, x, b.Labels())
		require.False(t, b.SeriesByKey(key[:len(key)-1]))
		b.Float(base+1, 2)
	})
	require.Equal(t, "0=1 1=2", floatsOf(t, f, x))

	put(t, f, l, name("late"), base+7_200_000, 1)
	l.apply(t, EncodeCutoff(storage.NoTime))
	commit(t, f, l, func(b *Batch) {
		require.False(t, b.SeriesByKey(key), "the series is dropped")
		b.Series(key, x)
		b.Float(base+7_200_000, 2)
	})
	b = f.NewBatch()
	require.True(t, b.SeriesByKey(key))
	b.Release()
}

// A key cache forgets, and keeps what is in use.
func TestKeyCacheIsBounded(t *testing.T) {
	c := newKeyCache()
	hot := &series{}
	c.put([]byte("hot"), hot)
	shard := c.shard([]byte("hot"))
	for i := range 4 * keyShards * keysPerShard {
		if key := fmt.Append(nil, i); c.shard(key) == shard {
			c.put(key, hot)
		}
		if i%keysPerShard == 0 {
			require.Same(t, hot, c.get([]byte("hot")))
		}
	}
	require.LessOrEqual(t, len(shard.young)+len(shard.old), 2*keysPerShard)
	require.NotEmpty(t, shard.old)
}

// Many writers, retries and deletes at once, one applier.
func TestBatchConcurrent(t *testing.T) {
	f, l := alone(t)
	setWindow(t, l, time.Hour)
	const writers, rounds = 8, 40
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			own, shared := name(fmt.Sprint("w", w)), name("shared")
			keys := [][]byte{seriesKey(own), seriesKey(shared)}
			for i := range rounds {
				for range 2 { // the second is a retry
					out := commit(t, f, l, func(b *Batch) {
						for k, ls := range []labels.Labels{own, shared} {
							if !b.SeriesByKey(keys[k]) {
								b.Series(keys[k], ls)
							}
							b.Float(base+int64(i), float64(i))
							b.Histogram(base+int64(i)+100_000, &histogram.Histogram{Sum: 1})
						}
						b.Metadata(fmt.Sprint("w", w), metadata.Metadata{Help: "h"})
					})
					if out.Floats != 2 || out.Histograms != 2 {
						t.Errorf("writer %d round %d: %+v", w, i, out)
					}
				}
				if i%10 == 9 {
					l.apply(t, EncodeDelete(Delete{ID: fmt.Sprint(w, i), Selectors: [][]*labels.Matcher{equals(model.MetricNameLabel, "other")}, Maxt: base}))
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, f.Err())
	require.Equal(t, (writers+1)*rounds*2, strings.Count(dump(t, f), "=")-writers-1)
	require.Len(t, f.MetricMetadata(), writers)
}
