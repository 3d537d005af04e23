// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"math"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/deucaliondb/deucalion/storage"
)

// Batch collects the samples of one write request and commits them. First make
// a series current (SeriesByKey, Series), then add its samples. A Batch is not
// goroutine-safe; it comes from NewBatch and goes back with Release.
type Batch struct {
	f     *FSM
	entry appendEntry

	cur      *series // the current series, if this node knows it
	curFresh int     // else its position in entry.series
	curOff   bool    // samples of the current series are refused: its labels cannot be stored
	known    []*series
	fresh    map[uint64][]int // hash of labels -> positions in entry.series
	keys     []freshKey

	doubtful []doubtful
	basis    uint64 // FSM.erased when the first doubtful verdict was found
	verdict  Reason // see Verdict

	out Outcome
}

// freshKey is a key to remember once its series is in the table.
type freshKey struct {
	key    []byte
	labels labels.Labels
}

// doubtful is a sample that this node's state decides, if that is still the
// state: a delete that this node has not applied yet might change it.
type doubtful struct {
	s *series
	x storage.Sample
	r Reason // Accepted: an exact retry
}

// maxFirst is how many refused samples an Outcome shows.
const maxFirst = 8

// Outcome is what became of the samples of a Batch.
type Outcome struct {
	// Index is the log index of the last entry, or, if nothing had to be written,
	// one at which all of it was there already. A read that waits for it sees all.
	Index uint64
	// Accepted ones, exact retries included. Exemplars are counted as sent: the
	// ring may drop what is out of order, as in Prometheus.
	Floats, Histograms, Exemplars int
	Refused                       map[Reason]int
	First                         []RefusedSample // the first few of them
}

// RefusedSample is an example for an error message.
type RefusedSample struct {
	Labels labels.Labels
	T      int64
	Reason Reason
}

// NewBatch returns an empty batch.
func (f *FSM) NewBatch() *Batch {
	b := f.batches.Get().(*Batch)
	b.f = f
	return b
}

// Release empties the batch and gives its memory back. It must not be used
// after.
func (b *Batch) Release() {
	b.entry.reset()
	clear(b.known)
	clear(b.fresh)
	clear(b.keys)
	clear(b.doubtful)
	f := b.f
	*b = Batch{entry: b.entry, known: b.known[:0], fresh: b.fresh, keys: b.keys[:0], doubtful: b.doubtful[:0]}
	f.batches.Put(b)
}

// SeriesByKey makes the series current whose label set has this key, if the node
// remembers it. The key is, for each label in order, the bytes
//
//	0x0a len( 0x0a len name 0x12 len value )
//
// with lengths as varints: the label fields of a remote-write 1.0 TimeSeries as
// they stand on the wire. key is not kept.
func (b *Batch) SeriesByKey(key []byte) bool {
	s := b.f.table.Load().keys.get(key)
	if s == nil {
		return false
	}
	b.setKnown(s)
	return true
}

// Series makes the series with these labels current and remembers key for it,
// if key is not nil. The labels must be sorted and have each name once; labels
// with an empty value are dropped. A label set that is empty is refused with
// each of its samples. key is not kept.
func (b *Batch) Series(key []byte, ls labels.Labels) {
	ls = ls.WithoutEmpty()
	t := b.f.table.Load()
	if s := t.byLabels(ls); s != nil {
		if key != nil {
			t.keys.put(key, s)
		}
		b.setKnown(s)
		return
	}
	b.cur, b.curOff = nil, !storable(ls)
	h := t.hash(ls)
	for _, i := range b.fresh[h] {
		if labels.Equal(b.entry.series[i].Labels, ls) {
			b.curFresh = i
			return
		}
	}
	b.curFresh = len(b.entry.series)
	b.entry.series = append(b.entry.series, record.RefSeries{Ref: chunks.HeadSeriesRef(b.curFresh), Labels: ls})
	if b.fresh == nil {
		b.fresh = map[uint64][]int{}
	}
	b.fresh[h] = append(b.fresh[h], b.curFresh)
	if key != nil {
		b.keys = append(b.keys, freshKey{append([]byte(nil), key...), ls})
	}
}

func (b *Batch) setKnown(s *series) {
	b.cur, b.curOff = s, false
	b.known = append(b.known, s)
}

// Labels returns the labels of the current series.
func (b *Batch) Labels() labels.Labels {
	if b.cur != nil {
		return b.cur.labels
	}
	return b.entry.series[b.curFresh].Labels
}

// target returns where samples of the current series go, and its ref there.
func (b *Batch) target() (*samples, chunks.HeadSeriesRef) {
	if b.cur != nil {
		return &b.entry.known, chunks.HeadSeriesRef(b.cur.id)
	}
	return &b.entry.fresh, chunks.HeadSeriesRef(b.curFresh)
}

// Float adds a float sample; t is in milliseconds.
func (b *Batch) Float(t int64, v float64) {
	b.verdict = Accepted
	if b.decided(storage.Sample{T: t, V: v}) {
		return
	}
	s, ref := b.target()
	s.floats = append(s.floats, record.RefSample{Ref: ref, T: t, V: v})
}

// Histogram adds an integer histogram, which passes to the batch.
func (b *Batch) Histogram(t int64, h *histogram.Histogram) {
	b.verdict = Accepted
	x := storage.Sample{T: t, H: h}
	if b.invalid(x) || b.decided(x) {
		return
	}
	s, ref := b.target()
	r := record.RefHistogramSample{Ref: ref, T: t, H: h}
	if h.UsesCustomBuckets() {
		s.customHistograms = append(s.customHistograms, r)
	} else {
		s.histograms = append(s.histograms, r)
	}
}

// FloatHistogram adds a float histogram, which passes to the batch.
func (b *Batch) FloatHistogram(t int64, fh *histogram.FloatHistogram) {
	b.verdict = Accepted
	x := storage.Sample{T: t, FH: fh}
	if b.invalid(x) || b.decided(x) {
		return
	}
	s, ref := b.target()
	r := record.RefFloatHistogramSample{Ref: ref, T: t, FH: fh}
	if fh.UsesCustomBuckets() {
		s.customFloatHists = append(s.customFloatHists, r)
	} else {
		s.floatHistograms = append(s.floatHistograms, r)
	}
}

// Exemplar adds an exemplar of the current series.
func (b *Batch) Exemplar(e exemplar.Exemplar) {
	if b.curOff || b.f.settings.Load().MaxExemplars == 0 {
		return
	}
	s, ref := b.target()
	s.exemplars = append(s.exemplars, record.RefExemplar{Ref: ref, T: e.Ts, V: e.Value, Labels: e.Labels})
	b.out.Exemplars++
}

// Metadata adds the metadata of a metric family, unless it is known. family is not kept.
func (b *Batch) Metadata(family string, m metadata.Metadata) {
	if family != "" && !b.f.metadata.has(family, m) {
		b.entry.metadata = append(b.entry.metadata, familyMetadata{strings.Clone(family), m})
	}
}

// Refuse counts a sample of the current series as refused; for what the caller
// itself cannot accept, such as a timestamp in the far future.
func (b *Batch) Refuse(t int64, r Reason) { b.refuse(b.Labels(), t, r) }

// Verdict is what this node's state says of the sample that was added last; what other writers do meanwhile may change
// it. Accepted also when the log alone can tell.
func (b *Batch) Verdict() Reason { return b.verdict }

// NewestTime is the time of the current series' newest sample, as far as this node knows: math.MinInt64 if it has none.
func (b *Batch) NewestTime() int64 {
	if b.cur == nil {
		return math.MinInt64
	}
	return b.cur.lastT.Load()
}

func (b *Batch) refuse(ls labels.Labels, t int64, r Reason) {
	b.verdict = r
	if b.out.Refused == nil {
		b.out.Refused = map[Reason]int{}
	}
	b.out.Refused[r]++
	if len(b.out.First) < maxFirst {
		b.out.First = append(b.out.First, RefusedSample{ls, t, r})
	}
}

func (b *Batch) accept(x storage.Sample) {
	if x.H == nil && x.FH == nil {
		b.out.Floats++
	} else {
		b.out.Histograms++
	}
}

func (b *Batch) invalid(x storage.Sample) bool {
	if valid(x) {
		return false
	}
	b.Refuse(x.T, Invalid)
	return true
}

// decided keeps samples out of the log whose verdict is known already: so a
// storm of retries costs this node look-ups, and the others nothing.
func (b *Batch) decided(x storage.Sample) bool {
	f := b.f
	switch {
	case b.curOff:
		b.Refuse(x.T, Invalid)
		return true
	case b.cur != nil && x.T > b.cur.lastT.Load() && x.T >= f.proposerFloor():
		return false
	case x.T < f.proposerFloor(): // the floor only rises
		f.m.predecided.WithLabelValues(TooOld.String()).Inc()
		b.Refuse(x.T, TooOld)
		return true
	case b.cur == nil:
		return false
	}
	return b.lookUp(x)
}

// lookUp asks this node's state about a sample that is not newer than its
// series. A failing look-up decides nothing: the log will.
func (b *Batch) lookUp(x storage.Sample) bool {
	f := b.f
	if len(b.doubtful) == 0 {
		b.basis = f.erased.Load()
	}
	old, found, err := f.store.Lookup(nil, b.cur.labels, x.T)
	switch {
	case err != nil:
		return false
	case found && same(old, x):
		b.doubtful = append(b.doubtful, doubtful{b.cur, x, Accepted})
	case found:
		b.verdict = Duplicate
		b.doubtful = append(b.doubtful, doubtful{b.cur, x, Duplicate})
	default:
		if f.settings.Load().OutOfOrderWindow == 0 {
			b.verdict = OutOfOrder // and in the log all the same: another writer may have sent just this sample
		}
		return false
	}
	return true
}

// proposerFloor is the admission floor as this node knows it; the true one may
// be higher, never lower but for a change of settings.
func (f *FSM) proposerFloor() int64 {
	return horizon(f.maxT.Load(), f.store.Cutoff(), f.settings.Load().OutOfOrderWindow)
}
