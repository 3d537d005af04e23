// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
)

// Added is what an append entry has added to the state, as records of Prometheus's WAL. Refs are the reader's own.
// Samples whose time was taken by the same value are in it: a retry looks like the first attempt.
type Added struct {
	Series          []record.RefSeries   // named for the first time by this reader
	Metadata        []record.RefMetadata // of these, and of others whose metadata changed
	Floats          []record.RefSample
	Histograms      []record.RefHistogramSample
	FloatHistograms []record.RefFloatHistogramSample
	Exemplars       []record.RefExemplar

	// Refused counts samples that the state machine had refused. Lost counts samples and exemplars whose series id
	// has been dropped from the table since, before this reader saw it: nobody knows their labels any more.
	Refused, Lost int
}

// freshRefs is where the refs of series begin that are in no table: their ids, if they had any, are gone.
const freshRefs = uint64(1) << 62

// LogReader makes append entries that were applied before into samples, on any goroutine, but one at a time. It reads
// the series table beside the applier. Which samples were refused is known of entries that this process has applied,
// up to a million of the newest refusals; older ones pass for accepted.
type LogReader struct {
	f     *FSM
	entry appendEntry
	out   Added
	pos   uint32
	bad   []uint32 // refused positions that are not passed yet

	known     map[uint64]*toldSeries
	unnamed   uint64 // series without an id so far
	described uint64 // f.metadata.changes that the newest look-ups saw

	// Series in doomed are named by no entry above doomedAt.
	doomed   []uint64
	doomedAt uint64
}

type toldSeries struct {
	s         *series // nil: in no table
	labels    labels.Labels
	described uint64
	meta      metadata.Metadata
}

// NewLogReader returns a reader that knows no series.
func (f *FSM) NewLogReader() *LogReader { return &LogReader{f: f, known: map[uint64]*toldSeries{}} }

// Read decodes an entry, which must have been applied. Entries must come in the order of the log. The answer and the
// slices in it are valid until the next call; what they point to stays. An entry that is no append adds nothing.
func (r *LogReader) Read(index uint64, entry []byte) (*Added, error) {
	r.out = Added{
		Series: r.out.Series[:0], Metadata: r.out.Metadata[:0], Floats: r.out.Floats[:0], Histograms: r.out.Histograms[:0],
		FloatHistograms: r.out.FloatHistograms[:0], Exemplars: r.out.Exemplars[:0],
	}
	k, p, err := open(entry)
	if err != nil || k != kindAppend {
		return &r.out, err
	}
	if err := r.entry.decode(p); err != nil {
		return nil, err
	}
	v := r.f.decided.of(index)
	if v.unknown {
		r.out.Refused = r.entry.known.len() + r.entry.fresh.len()
		return &r.out, nil
	}
	r.pos, r.bad, r.described = 0, v.refused, r.f.metadata.changes.Load()
	r.samples(&r.entry.known, r.byID)
	fresh := make([]uint64, len(r.entry.series)) // refs, 0 as long as not needed
	r.samples(&r.entry.fresh, func(ref chunks.HeadSeriesRef) (uint64, bool) {
		if uint64(ref) >= uint64(len(fresh)) {
			return 0, false // not a series of the entry: Apply had stopped at it
		}
		if fresh[ref] == 0 {
			fresh[ref] = r.byLabels(r.entry.series[ref].Labels)
		}
		return fresh[ref], true
	})
	return &r.out, nil
}

// take tells whether the next sample was accepted.
func (r *LogReader) take() bool {
	pos := r.pos
	r.pos++
	if len(r.bad) > 0 && r.bad[0] == pos {
		r.bad = r.bad[1:]
		r.out.Refused++
		return false
	}
	return true
}

// samples adds those of s that were accepted, in the order of positions.
func (r *LogReader) samples(s *samples, find func(chunks.HeadSeriesRef) (uint64, bool)) {
	resolve := func(ref *chunks.HeadSeriesRef) bool {
		id, ok := find(*ref)
		if !ok {
			r.out.Lost++
			return false
		}
		*ref = chunks.HeadSeriesRef(id)
		return true
	}
	for _, x := range s.floats {
		if r.take() && resolve(&x.Ref) {
			r.out.Floats = append(r.out.Floats, x)
		}
	}
	ints := func(list []record.RefHistogramSample) {
		for _, x := range list {
			if r.take() && resolve(&x.Ref) {
				r.out.Histograms = append(r.out.Histograms, x)
			}
		}
	}
	floats := func(list []record.RefFloatHistogramSample) {
		for _, x := range list {
			if r.take() && resolve(&x.Ref) {
				r.out.FloatHistograms = append(r.out.FloatHistograms, x)
			}
		}
	}
	ints(s.histograms)
	floats(s.floatHistograms)
	ints(s.customHistograms)
	floats(s.customFloatHists)
	for _, x := range s.exemplars {
		if resolve(&x.Ref) {
			r.out.Exemplars = append(r.out.Exemplars, x)
		}
	}
}

// byID returns the ref of a series that an entry names by its id.
func (r *LogReader) byID(ref chunks.HeadSeriesRef) (uint64, bool) {
	id := uint64(ref)
	if _, ok := r.known[id]; !ok {
		s := r.f.table.Load().lookUp(id)
		if s == nil {
			return 0, false
		}
		r.learn(id, s, s.labels)
	}
	r.describe(id)
	return id, true
}

// byLabels returns the ref of a series that came with its labels: its id, or a ref of our own when it is in no table.
func (r *LogReader) byLabels(ls labels.Labels) uint64 {
	s := r.f.table.Load().byLabels(ls)
	id := freshRefs + r.unnamed
	if s != nil {
		id = s.id
	} else {
		r.unnamed++
	}
	if _, ok := r.known[id]; !ok {
		r.learn(id, s, ls)
	}
	r.describe(id)
	return id
}

func (r *LogReader) learn(id uint64, s *series, ls labels.Labels) {
	r.known[id] = &toldSeries{s: s, labels: ls}
	r.out.Series = append(r.out.Series, record.RefSeries{Ref: chunks.HeadSeriesRef(id), Labels: ls})
}

// describe looks the metadata of a series up again if any have changed.
func (r *LogReader) describe(id uint64) {
	x := r.known[id]
	if x.described == r.described+1 {
		return
	}
	x.described = r.described + 1
	m, ok := r.f.metadata.of(x.labels.Get(model.MetricNameLabel))
	if !ok || m == x.meta {
		return
	}
	x.meta = m
	r.out.Metadata = append(r.out.Metadata, record.RefMetadata{Ref: chunks.HeadSeriesRef(id), Type: uint8(record.GetMetricType(m.Type)), Unit: m.Unit, Help: m.Help})
}

// Forget lets go of series that no entry above index names any more, and returns those that remain; nil if none went.
// Call it now and then with the index of the entry read last.
func (r *LogReader) Forget(index uint64) (remaining []record.RefSeries) {
	gone := len(r.doomed) > 0
	if gone {
		if r.doomedAt == 0 { // a call later: the entry that dropped them is published by now
			r.doomedAt, _ = r.f.Applied()
		}
		if index < r.doomedAt {
			return nil
		}
	}
	for _, id := range r.doomed {
		delete(r.known, id)
	}
	r.doomed, r.doomedAt = nil, 0
	for id, x := range r.known {
		if x.s == nil || x.s.dropped.Load() { // an entry that named it after that was refused
			r.doomed = append(r.doomed, id)
		}
	}
	if !gone {
		return nil
	}
	remaining = make([]record.RefSeries, 0, len(r.known))
	for id, x := range r.known {
		remaining = append(remaining, record.RefSeries{Ref: chunks.HeadSeriesRef(id), Labels: x.labels})
	}
	return remaining
}

// familySuffixes are what the series of a metric family have behind its name, by the types that have them.
var familySuffixes = []struct {
	suffix string
	types  []model.MetricType
}{
	{"_bucket", []model.MetricType{model.MetricTypeHistogram, model.MetricTypeGaugeHistogram}},
	{"_sum", []model.MetricType{model.MetricTypeHistogram, model.MetricTypeSummary}},
	{"_count", []model.MetricType{model.MetricTypeHistogram, model.MetricTypeSummary}},
	{"_gsum", []model.MetricType{model.MetricTypeGaugeHistogram}},
	{"_gcount", []model.MetricType{model.MetricTypeGaugeHistogram}},
	{"_total", []model.MetricType{model.MetricTypeCounter}},
	{"_info", []model.MetricType{model.MetricTypeInfo}},
}

// of returns the newest metadata of the family that the metric belongs to.
func (x *metadataMap) of(metric string) (metadata.Metadata, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if list := x.families[metric]; len(list) > 0 {
		return list[len(list)-1], true
	}
	for _, f := range familySuffixes {
		family, ok := strings.CutSuffix(metric, f.suffix)
		if !ok {
			continue
		}
		for _, m := range slices.Backward(x.families[family]) {
			if slices.Contains(f.types, m.Type) {
				return m, true
			}
		}
	}
	return metadata.Metadata{}, false
}
