// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/deucaliondb/deucalion/storage"
)

// split sorts the samples, drops what an entry must not hold (two samples of one
// series at one time; the first stays), and cuts entries of a bounded size, each
// with all samples of its series.
func (e *appendEntry) split(b *Batch) []*appendEntry {
	names := sync.OnceValue(b.labelsByID) // of many series, and rarely needed
	e.known.normalise(func(ref chunks.HeadSeriesRef, x storage.Sample, again bool) {
		b.dropped(names()[uint64(ref)], x, again)
	})
	e.fresh.normalise(func(ref chunks.HeadSeriesRef, x storage.Sample, again bool) {
		b.dropped(e.series[ref].Labels, x, again)
	})
	if e.empty() {
		return nil
	}
	if e.known.len()+e.fresh.len()+len(e.known.exemplars)+len(e.fresh.exemplars) <= maxEntrySamples && len(e.series) <= maxEntrySeries {
		return []*appendEntry{e}
	}
	return e.cut()
}

func (b *Batch) dropped(ls labels.Labels, x storage.Sample, again bool) {
	if again {
		b.accept(x)
	} else {
		b.refuse(ls, x.T, Duplicate)
	}
}

type at struct {
	ref chunks.HeadSeriesRef
	t   int64
}

// normalise sorts each list by series and time and removes second samples of
// one series at one time. again tells dropped that the value is the same.
func (s *samples) normalise(dropped func(ref chunks.HeadSeriesRef, x storage.Sample, again bool)) {
	sortFloats(s.floats)
	kept := s.floats[:0]
	for _, x := range s.floats {
		if n := len(kept); n > 0 && kept[n-1].Ref == x.Ref && kept[n-1].T == x.T {
			y := storage.Sample{T: x.T, V: x.V}
			dropped(x.Ref, y, same(storage.Sample{T: x.T, V: kept[n-1].V}, y))
			continue
		}
		kept = append(kept, x)
	}
	s.floats = kept
	if s.len() == len(s.floats) {
		return
	}
	seen := make(map[at]storage.Sample, s.len())
	for _, x := range s.floats {
		seen[at{x.Ref, x.T}] = storage.Sample{T: x.T, V: x.V}
	}
	first := func(ref chunks.HeadSeriesRef, x storage.Sample) bool {
		old, found := seen[at{ref, x.T}]
		if found {
			dropped(ref, x, same(old, x))
		} else {
			seen[at{ref, x.T}] = x
		}
		return !found
	}
	hs := func(l []record.RefHistogramSample) []record.RefHistogramSample {
		slices.SortStableFunc(l, func(a, b record.RefHistogramSample) int {
			return cmp.Or(cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.T, b.T))
		})
		return slices.DeleteFunc(l, func(r record.RefHistogramSample) bool { return !first(r.Ref, storage.Sample{T: r.T, H: r.H}) })
	}
	fhs := func(l []record.RefFloatHistogramSample) []record.RefFloatHistogramSample {
		slices.SortStableFunc(l, func(a, b record.RefFloatHistogramSample) int {
			return cmp.Or(cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.T, b.T))
		})
		return slices.DeleteFunc(l, func(r record.RefFloatHistogramSample) bool {
			return !first(r.Ref, storage.Sample{T: r.T, FH: r.FH})
		})
	}
	s.histograms, s.customHistograms = hs(s.histograms), hs(s.customHistograms)
	s.floatHistograms, s.customFloatHists = fhs(s.floatHistograms), fhs(s.customFloatHists)
}

// cut distributes a large entry over several.
func (e *appendEntry) cut() []*appendEntry {
	var out []*appendEntry
	group(&e.known, func(refs []chunks.HeadSeriesRef, part *samples) {
		out = append(out, &appendEntry{known: *part})
	})
	group(&e.fresh, func(refs []chunks.HeadSeriesRef, part *samples) {
		n := &appendEntry{}
		renumber := make(map[chunks.HeadSeriesRef]chunks.HeadSeriesRef, len(refs))
		for _, r := range refs {
			renumber[r] = chunks.HeadSeriesRef(len(n.series))
			n.series = append(n.series, record.RefSeries{Ref: renumber[r], Labels: e.series[r].Labels})
		}
		_ = each(part, func(ref chunks.HeadSeriesRef, x storage.Sample) error {
			n.fresh.add(renumber[ref], x)
			return nil
		})
		for _, x := range part.exemplars {
			x.Ref = renumber[x.Ref]
			n.fresh.exemplars = append(n.fresh.exemplars, x)
		}
		out = append(out, n)
	})
	if len(out) == 0 {
		out = append(out, &appendEntry{})
	}
	out[0].metadata = e.metadata
	return out
}

// group calls f with parts of s, each with all that belongs to its series, and
// with the series in it.
func group(s *samples, f func(refs []chunks.HeadSeriesRef, part *samples)) {
	count := map[chunks.HeadSeriesRef]int{}
	var order []chunks.HeadSeriesRef
	note := func(ref chunks.HeadSeriesRef) {
		if count[ref] == 0 {
			order = append(order, ref)
		}
		count[ref]++
	}
	_ = each(s, func(ref chunks.HeadSeriesRef, _ storage.Sample) error { note(ref); return nil })
	for _, x := range s.exemplars {
		note(x.Ref)
	}
	slices.Sort(order)
	part, parts := map[chunks.HeadSeriesRef]int{}, [][]chunks.HeadSeriesRef{}
	size := maxEntrySamples
	for _, ref := range order {
		if size+count[ref] > maxEntrySamples || len(parts[len(parts)-1]) >= maxEntrySeries {
			parts = append(parts, nil)
			size = 0
		}
		size += count[ref]
		part[ref] = len(parts) - 1
		parts[len(parts)-1] = append(parts[len(parts)-1], ref)
	}
	split := make([]samples, len(parts))
	_ = each(s, func(ref chunks.HeadSeriesRef, x storage.Sample) error {
		split[part[ref]].add(ref, x)
		return nil
	})
	for _, x := range s.exemplars {
		p := &split[part[x.Ref]]
		p.exemplars = append(p.exemplars, x)
	}
	for i := range split {
		f(parts[i], &split[i])
	}
}
