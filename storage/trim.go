// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

type trimSet struct {
	storage.SeriesSet
	mint, maxt int64
	exact      bool
	note       func(error) error
}

// At implements storage.SeriesSet.
func (s *trimSet) At() storage.Series { return &trimSeries{s.SeriesSet.At(), s} }

// Err implements storage.SeriesSet.
func (s *trimSet) Err() error { return s.note(s.SeriesSet.Err()) }

type trimSeries struct {
	storage.Series
	set *trimSet
}

func (s *trimSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	t, ok := it.(*trimIterator)
	if !ok {
		t = &trimIterator{}
	}
	*t = trimIterator{Iterator: s.Series.Iterator(t.Iterator), mint: s.set.mint, maxt: s.set.maxt, exact: s.set.exact, note: s.set.note}
	return t
}

// trimIterator keeps to [mint, maxt] and hides what depends on the layout: the
// reset hints and the empty buckets of histograms, which follow chunk boundaries,
// and, if exact, the type of stale markers.
type trimIterator struct {
	chunkenc.Iterator
	mint, maxt int64
	exact      bool
	started    bool
	stale      bool // the current sample is a histogram stale marker, shown as a float
	note       func(error) error
}

// Err implements chunkenc.Iterator.
func (t *trimIterator) Err() error { return t.note(t.Iterator.Err()) }

func (t *trimIterator) Next() chunkenc.ValueType {
	if !t.started {
		t.started = true
		return t.at(t.Iterator.Seek(t.mint))
	}
	return t.at(t.Iterator.Next())
}

func (t *trimIterator) Seek(x int64) chunkenc.ValueType {
	t.started = true
	return t.at(t.Iterator.Seek(max(x, t.mint)))
}

func (t *trimIterator) at(vt chunkenc.ValueType) chunkenc.ValueType {
	t.stale = false
	if vt == chunkenc.ValNone || t.Iterator.AtT() > t.maxt {
		return chunkenc.ValNone
	}
	if !t.exact || vt == chunkenc.ValFloat {
		return vt
	}
	// A stale marker has no buckets, so decoding it as a float histogram is cheap
	// compared with the histograms around it.
	if _, fh := t.Iterator.AtFloatHistogram(nil); value.IsStaleNaN(fh.Sum) {
		t.stale = true
		return chunkenc.ValFloat
	}
	return vt
}

func (t *trimIterator) At() (int64, float64) {
	if t.stale {
		return t.AtT(), math.Float64frombits(value.StaleNaN)
	}
	return t.Iterator.At()
}

// AtHistogram implements chunkenc.Iterator. Without memory of the caller's, TSDB's iterators return their own, and go on
// from what is in it: Compact would change that.
func (t *trimIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	if h == nil {
		h = &histogram.Histogram{}
	}
	ts, h := t.Iterator.AtHistogram(h)
	if h.CounterResetHint != histogram.GaugeType {
		h.CounterResetHint = histogram.UnknownCounterReset
	}
	return ts, h.Compact(0)
}

// AtFloatHistogram implements chunkenc.Iterator.
func (t *trimIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	if h == nil {
		h = &histogram.FloatHistogram{}
	}
	ts, h := t.Iterator.AtFloatHistogram(h)
	if h.CounterResetHint != histogram.GaugeType {
		h.CounterResetHint = histogram.UnknownCounterReset
	}
	return ts, h.Compact(0)
}
