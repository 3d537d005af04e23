// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/deucaliondb/deucalion/storage"
)

// watcher queries a replica while that applies, freezes, flushes, merges and restores,
// on a goroutine of its own. Between the index applied before a look and the newest
// one begun after it, every sample that was there all along must be seen, and nothing
// else but what was there at some time.
type watcher struct {
	w      *twin
	r      *replica
	kicks  chan struct{}
	cancel context.CancelFunc
	wg     sync.WaitGroup
	found  atomic.Pointer[error]

	// Read after stop.
	complete int // looks that no restore came between
	during   int // looks while one was under way
}

func (w *twin) startWatchers() (out []*watcher) {
	for _, r := range w.replicas {
		if !r.watch {
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		x := &watcher{w: w, r: r, kicks: make(chan struct{}, 1), cancel: cancel}
		x.wg.Go(func() { x.run(ctx) })
		out = append(out, x)
	}
	return out
}

// kick asks for a look. The watcher does not spin: this machine has other work.
func (x *watcher) kick() {
	select {
	case x.kicks <- struct{}{}:
	default:
	}
}

func (x *watcher) stop() {
	x.cancel()
	x.wg.Wait()
}

func (x *watcher) err() error {
	if e := x.found.Load(); e != nil {
		return *e
	}
	return nil
}

func (x *watcher) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-x.kicks:
		}
		if err := x.look(ctx); err != nil && ctx.Err() == nil {
			x.found.Store(&err)
			return
		}
	}
}

// seen are the samples of a look, by series and time.
type seen map[int]map[int64]string

func (x *watcher) look(ctx context.Context) error {
	x.r.mu.RLock()
	defer x.r.mu.RUnlock()
	f := x.r.f
	mint, maxt := int64(-1<<50), int64(1<<50)
	if rand.IntN(2) == 0 {
		maxt = f.MaxTime() + minute
		mint = maxt - rand.Int64N(400*minute)
	}
	way := ways[rand.IntN(len(ways))]

	restores := x.r.restores.Load()
	applied, _ := f.Applied()
	lo := int64(applied)
	if restores%2 == 1 {
		lo = min(lo, x.r.low.Load())
	}
	got, err := way.look(ctx, f, mint, maxt)
	if err != nil {
		return fmt.Errorf("%s: %w", way.name, err)
	}
	hi := x.w.begun.Load()
	switch {
	case x.r.restores.Load() != restores:
		lo = 0 // nothing was there all along
	case restores%2 == 1:
		x.during++
	default:
		x.complete++
	}
	if err := x.w.model.check(got, mint, maxt, lo, hi); err != nil {
		return fmt.Errorf("%s of [%d, %d], entries %d to %d: %w", way.name, mint, maxt, lo, hi, err)
	}
	return lookAtRest(ctx, f)
}

// check compares a look with the history.
func (m *twinModel) check(got seen, mint, maxt, lo, hi int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for s, ts := range got {
		for t, v := range ts {
			if !slices.ContainsFunc(m.lives[s][t], func(l life) bool { return l.text == v && l.from <= hi && l.to > lo }) {
				return fmt.Errorf("%s has %q at %d, which was not there: %v", seriesLabels(s), v, t, m.lives[s][t])
			}
		}
	}
	for s, ts := range m.lives {
		for t, ls := range ts {
			for _, l := range ls {
				if _, ok := got[s][t]; !ok && mint <= t && t <= maxt && l.from <= lo && l.to > hi {
					return fmt.Errorf("%s lacks %q at %d, which was there: %v", seriesLabels(s), l.text, t, ls)
				}
			}
		}
	}
	return nil
}

// ways are the ways to look.
var ways = []struct {
	name string
	look func(context.Context, *FSM, int64, int64) (seen, error)
}{
	{"Next", func(ctx context.Context, f *FSM, mint, maxt int64) (seen, error) {
		return lookBySamples(ctx, f, mint, maxt, false)
	}},
	{"Seek", func(ctx context.Context, f *FSM, mint, maxt int64) (seen, error) {
		return lookBySamples(ctx, f, mint, maxt, true)
	}},
	{"exact Next", func(ctx context.Context, f *FSM, mint, maxt int64) (seen, error) {
		return lookBySamples(ctx, f.ExactQueryable(), mint, maxt, false)
	}},
	{"chunks", lookByChunks},
}

func lookBySamples(ctx context.Context, qa promstorage.Queryable, mint, maxt int64, seek bool) (seen, error) {
	q, err := qa.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	out := seen{}
	ss := q.Select(ctx, true, &promstorage.SelectHints{Start: mint, End: maxt}, everything)
	for ss.Next() {
		it := ss.At().Iterator(nil)
		first := it.Next
		if seek {
			first = func() chunkenc.ValueType { return it.Seek(mint) }
		}
		if err := out.add(ss.At().Labels(), it, first()); err != nil {
			return nil, err
		}
	}
	return out, ss.Err()
}

func lookByChunks(ctx context.Context, f *FSM, mint, maxt int64) (seen, error) {
	q, err := f.ChunkQuerier(mint, maxt)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	out := seen{}
	ss := q.Select(ctx, true, nil, everything)
	for ss.Next() {
		var it chunks.Iterator
		for it = ss.At().Iterator(nil); it.Next(); {
			samples := it.At().Chunk.Iterator(nil)
			if err := out.add(ss.At().Labels(), samples, samples.Next()); err != nil {
				return nil, err
			}
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
	}
	return out, ss.Err()
}

// add takes in what it gives, from its current sample on, which is of type vt.
func (s seen) add(ls labels.Labels, it chunkenc.Iterator, vt chunkenc.ValueType) error {
	n := seriesNumber(ls)
	if !labels.Equal(ls, seriesLabels(n)) {
		return fmt.Errorf("foreign series %s", ls)
	}
	if s[n] == nil {
		s[n] = map[int64]string{}
	}
	last := int64(math.MinInt64)
	for ; vt != chunkenc.ValNone; vt = it.Next() {
		var x storage.Sample
		switch vt {
		case chunkenc.ValFloat:
			x.T, x.V = it.At()
		case chunkenc.ValHistogram:
			x.T, x.H = it.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			x.T, x.FH = it.AtFloatHistogram(nil)
		}
		if _, ok := s[n][x.T]; ok || x.T <= last {
			return fmt.Errorf("%s: %d comes after %d", ls, x.T, last)
		}
		last = x.T
		s[n][x.T] = text(x)
	}
	return it.Err()
}

// lookAtRest reads what has no history in the model; that it is right at rest, compare tells.
func lookAtRest(ctx context.Context, f *FSM) error {
	q, err := f.Querier(-1<<50, 1<<50)
	if err != nil {
		return err
	}
	defer q.Close()
	values, _, err := q.LabelValues(ctx, "i", nil)
	if err != nil {
		return err
	}
	for _, v := range values {
		if n, err := strconv.Atoi(v); err != nil || n >= numSeries {
			return fmt.Errorf("label value %q", v)
		}
	}
	eq, err := f.ExemplarQuerier(ctx)
	if err != nil {
		return err
	}
	if _, err := eq.Select(math.MinInt64, math.MaxInt64, []*labels.Matcher{everything}); err != nil {
		return err
	}
	f.MetricMetadata()
	_, err = f.Stats("g", 10)
	return err
}
