// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// Lookup finds the sample of one series at one timestamp, in whatever tier it
// is. r is the series' Ref if the caller has one (nil: none); it makes the
// look-up in the active memtable cheap. Goroutine-safe, but r must not be
// changed meanwhile. Stale markers are found as floats or as histograms. Damage
// is an ErrDamaged.
func (s *Store) Lookup(r *Ref, ls labels.Labels, t int64) (x Sample, found bool, err error) {
	if t < s.cutoff.Load() {
		return Sample{}, false, nil
	}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return Sample{}, false, ErrClosed
	}
	ts := s.tiersLocked(t, t)
	readers := make([]tierReader, 0, len(ts))
	for _, t := range ts {
		var o tierReader
		if o, err = openReader(t); err != nil {
			break
		}
		readers = append(readers, o)
	}
	s.mu.RUnlock()
	defer releaseTiers(ts)
	defer func() {
		for _, o := range readers {
			o.close()
		}
	}()
	for i := len(readers) - 1; i >= 0 && err == nil && !found; i-- { // newest first
		var known storage.SeriesRef
		if m := ts[i].m; r != nil && m != nil && m.gen == r.gen {
			known = r.ref
		}
		x, found, err = readers[i].lookup(known, ls, t)
	}
	if err != nil {
		return Sample{}, false, fmt.Errorf("look up %s at %d: %w", ls, t, markDamage(s.noteReadError(err)))
	}
	return x, found, nil
}

type tierReader struct {
	index  tsdb.IndexReader
	chunks tsdb.ChunkReader
	stones interface {
		Get(storage.SeriesRef) (tombstones.Intervals, error)
		Close() error
	}
}

func openReader(t tier) (tierReader, error) {
	// One way for all heads: the range reader of an in-order head has no cheap
	// access by ref.
	r := t.r
	if t.m != nil {
		if _, ok := r.(*memReader); !ok {
			r = &memReader{m: t.m, mint: t.mint, maxt: t.maxt, stones: t.m.stones}
		}
	}
	ir, err := r.Index()
	if err != nil {
		return tierReader{}, err
	}
	cr, err := r.Chunks()
	if err != nil {
		_ = ir.Close()
		return tierReader{}, err
	}
	st, err := r.Tombstones()
	if err != nil {
		_, _ = ir.Close(), cr.Close()
		return tierReader{}, err
	}
	return tierReader{ir, cr, st}, nil
}

func (o tierReader) close() { _, _, _ = o.index.Close(), o.chunks.Close(), o.stones.Close() }

func (o tierReader) lookup(known storage.SeriesRef, ls labels.Labels, t int64) (Sample, bool, error) {
	ref := known
	if ref == 0 {
		var err error
		if ref, err = o.find(ls); err != nil || ref == 0 {
			return Sample{}, false, err
		}
	}
	ivs, err := o.stones.Get(ref)
	if err != nil {
		return Sample{}, false, err
	}
	for _, iv := range ivs {
		if iv.InBounds(t) {
			return Sample{}, false, nil
		}
	}
	var b labels.ScratchBuilder
	var metas []chunks.Meta
	if err := o.index.Series(ref, &b, &metas); err != nil {
		return Sample{}, false, err
	}
	for _, m := range metas {
		if m.MinTime <= t && t <= m.MaxTime {
			if x, found, err := o.read(m, t); found || err != nil {
				return x, found, err
			}
		}
	}
	return Sample{}, false, nil
}

// find returns the ref of the series with exactly these labels, or 0. Postings
// of the three longest values are intersected: those tend to be selective, and
// every further list costs more than it saves.
func (o tierReader) find(ls labels.Labels) (storage.SeriesRef, error) {
	var all []labels.Label
	ls.Range(func(l labels.Label) { all = append(all, l) })
	slices.SortFunc(all, func(a, b labels.Label) int { return len(b.Value) - len(a.Value) })
	var lists []index.Postings
	for _, l := range all[:min(3, len(all))] {
		p, err := o.index.Postings(context.Background(), l.Name, l.Value)
		if err != nil {
			return 0, err
		}
		lists = append(lists, p)
	}
	p := index.Intersect(lists...)
	var b labels.ScratchBuilder
	for p.Next() {
		if err := o.index.Series(p.At(), &b, nil); err != nil {
			return 0, err
		}
		if labels.Equal(b.Labels(), ls) {
			return p.At(), nil
		}
	}
	return 0, p.Err()
}

func (o tierReader) read(m chunks.Meta, t int64) (x Sample, found bool, err error) {
	c, iterable, err := o.chunks.ChunkOrIterable(m)
	if err != nil {
		return Sample{}, false, err
	}
	var it chunkenc.Iterator
	if iterable != nil {
		it = iterable.Iterator(nil)
	} else {
		it = c.Iterator(nil)
	}
	vt := it.Seek(t)
	if vt == chunkenc.ValNone || it.AtT() != t {
		return Sample{}, false, it.Err()
	}
	x.T = t
	switch vt {
	case chunkenc.ValFloat:
		_, x.V = it.At()
	case chunkenc.ValHistogram:
		_, x.H = it.AtHistogram(nil)
	case chunkenc.ValFloatHistogram:
		_, x.FH = it.AtFloatHistogram(nil)
	}
	return x, true, nil
}
