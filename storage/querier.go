// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Querier returns a querier over all tiers for the closed range [mint, maxt],
// clamped by retention. Its results depend on the logical state alone: sorted
// series, samples trimmed to the range, exact label names and values, no
// histogram reset hints (they follow chunk boundaries). A series may come
// without samples, which PromQL drops; Exact queriers never return one.
func (s *Store) Querier(mint, maxt int64) (storage.Querier, error) {
	return s.querier(mint, maxt, false)
}

// ExactQuerier is Querier without series that have no sample in the range, and
// with every stale marker shown as a float: the log does not say which type a
// marker has, each memtable guesses it. For readers of raw samples.
func (s *Store) ExactQuerier(mint, maxt int64) (storage.Querier, error) {
	return s.querier(mint, maxt, true)
}

func (s *Store) querier(mint, maxt int64, exact bool) (*querier, error) {
	mint, ts, qs, err := s.openTiers(mint, maxt)
	if err != nil {
		return nil, err
	}
	return &querier{tiers: ts, parts: qs, mint: mint, maxt: maxt, exact: exact, note: s.noteReadError}, nil
}

// ChunkQuerier returns a chunk querier. Chunks are encoded anew from the exact
// samples: those on disk differ between nodes and straddle the range, the
// cutoff and deletes.
func (s *Store) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := s.querier(mint, maxt, true)
	if err != nil {
		return nil, err
	}
	return chunkQuerier{q}, nil
}

type querier struct {
	tiers      []tier
	parts      []storage.Querier // of the tiers, in their order
	mint, maxt int64
	exact      bool
	closed     bool
	note       func(error) error // of an error that a read has met
}

func (q *querier) Close() error {
	if q.closed {
		return nil
	}
	q.closed = true
	var errs []error
	for _, p := range q.parts {
		errs = append(errs, p.Close())
	}
	releaseTiers(q.tiers)
	return errors.Join(errs...)
}

// Select implements storage.Querier. The result is always sorted: the order of
// series refs differs between nodes, and float sums depend on the order.
func (q *querier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	h := storage.SelectHints{Start: q.mint, End: q.maxt}
	if hints != nil {
		h = *hints
		h.Start, h.End = max(h.Start, q.mint), min(h.End, q.maxt)
	}
	exact := q.exact || h.Func == "series"
	if h.Func == "series" {
		h.Func = "" // TSDB would answer from chunk bounds alone
	}
	limit := h.Limit
	h.Limit = 0 // below, it would count series that turn out to be empty
	// TSDB's own trimming panics on a series with two tombstones (Intervals.Add
	// with MaxInt64), so samples are trimmed here.
	h.DisableTrimming = true
	if len(q.parts) == 0 || h.Start > h.End {
		return storage.EmptySeriesSet()
	}
	set := storage.NewMergeQuerier(q.parts, nil, storage.ChainedSeriesMerge).Select(ctx, true, &h, ms...)
	trimmed := &trimSet{SeriesSet: set, mint: h.Start, maxt: h.End, exact: q.exact, note: q.note}
	if !exact && limit == 0 {
		return trimmed
	}
	return &nonEmptySet{SeriesSet: trimmed, limit: limit}
}

// nonEmptySet drops series without samples and ends after limit series (0: no
// limit).
type nonEmptySet struct {
	storage.SeriesSet
	limit, n int
	it       chunkenc.Iterator
	err      error
}

func (s *nonEmptySet) Next() bool {
	for s.err == nil && (s.limit == 0 || s.n < s.limit) && s.SeriesSet.Next() {
		s.it = s.At().Iterator(s.it)
		if s.it.Next() != chunkenc.ValNone {
			s.n++
			return true
		}
		s.err = s.it.Err()
	}
	return false
}

func (s *nonEmptySet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.SeriesSet.Err()
}

type chunkQuerier struct{ *querier }

func (q chunkQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	return storage.NewSeriesSetToChunkSet(q.querier.Select(ctx, true, hints, ms...))
}
