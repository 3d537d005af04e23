// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/deucaliondb/deucalion/storage"
)

// appending is the application of one append entry.
type appending struct {
	f     *FSM
	app   storage.Appender
	r     *Result
	n     uint32    // samples of the entry so far
	pos   uint32    // position of the one that is being decided
	late  int64     // bytes of chunks that TSDB may have to write for samples out of order
	known []*series // of the known samples, in the order of their sections
	fresh []freshSeries
}

// freshSeries is a series that came with its labels. It gets an id with its
// first accepted sample; a refused sample never creates a series.
type freshSeries struct {
	labels labels.Labels
	s      *series // nil as long as it is in no table
	bad    bool    // labels that cannot be stored
}

func (f *FSM) applyAppend(index uint64, p []byte, r *Result) error {
	e := &f.entry
	if err := e.decode(p); err != nil {
		return err
	}
	known, ok := f.resolve(&e.known)
	if !ok {
		r.Unknown = true
		f.m.unknownIDs.Inc()
		return nil
	}
	a := &appending{f: f, app: f.store.Appender(), r: r, known: known}
	if err := a.run(e); err != nil {
		return errors.Join(err, a.app.Rollback())
	}
	if a.late > 0 {
		if err := f.whenThereIsRoom(index, func() error { return f.store.CheckRoom(a.late) }); err != nil {
			return errors.Join(err, a.app.Rollback())
		}
	}
	if err := a.app.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	a.exemplars(e)
	f.metadata.merge(e.metadata)
	f.m.countRefused(r.Refused)
	f.m.samples.Add(float64(int(a.n) - len(r.Refused)))
	return f.whenThereIsRoom(index, func() error { return f.store.MaybeFreeze(f.maxT.Load()) })
}

// resolve finds the series of all known samples and exemplars, in the order of
// the sections. ok is false if one is gone.
func (f *FSM) resolve(s *samples) (out []*series, ok bool) {
	out = f.hits[:0]
	t := f.table.Load()
	find := func(ref chunks.HeadSeriesRef) bool {
		s := t.byID(uint64(ref))
		out = append(out, s)
		return s != nil
	}
	ok = true
	for i := range s.floats {
		ok = find(s.floats[i].Ref) && ok
	}
	for i := range s.histograms {
		ok = find(s.histograms[i].Ref) && ok
	}
	for i := range s.floatHistograms {
		ok = find(s.floatHistograms[i].Ref) && ok
	}
	for i := range s.customHistograms {
		ok = find(s.customHistograms[i].Ref) && ok
	}
	for i := range s.customFloatHists {
		ok = find(s.customFloatHists[i].Ref) && ok
	}
	f.hits = out
	return out, ok
}

// undecided is a sample of an entry: of a series in the table, or of one that
// the entry brings.
type undecided struct {
	pos   uint32
	s     *series
	fresh *freshSeries // if s is nil
	x     storage.Sample
}

// run decides on all samples of the entry: in the order of their positions, or,
// if floats and histograms are mixed, in the order of time. For a series may have
// both, a histogram with its stale marker, say, and lists of their own would put
// the marker first.
func (a *appending) run(e *appendEntry) error {
	for _, s := range e.series {
		a.fresh = append(a.fresh, freshSeries{labels: s.Labels, s: a.f.table.Load().byLabels(s.Labels), bad: !storable(s.Labels)})
	}
	next := a.decide
	var all []undecided
	if mixed := e.mixed(); mixed {
		next = func(u undecided) error {
			all = append(all, u)
			return nil
		}
	}
	err := each(&e.known, func(_ chunks.HeadSeriesRef, x storage.Sample) error {
		u := undecided{pos: a.n, s: a.known[a.n], x: x}
		a.n++
		return next(u)
	})
	if err != nil {
		return err
	}
	err = each(&e.fresh, func(ref chunks.HeadSeriesRef, x storage.Sample) error {
		if uint64(ref) >= uint64(len(a.fresh)) {
			return fmt.Errorf("%w: sample of series %d, the entry brings %d", ErrFormat, ref, len(a.fresh))
		}
		u := undecided{pos: a.n, fresh: &a.fresh[ref], x: x}
		a.n++
		return next(u)
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b undecided) int { return cmp.Compare(a.x.T, b.x.T) })
	for _, u := range all {
		if err := a.decide(u); err != nil {
			return err
		}
	}
	slices.SortFunc(a.r.Refused, func(a, b Refusal) int { return cmp.Compare(a.Pos, b.Pos) })
	return nil
}

// mixed tells whether the entry has samples of more than one type.
func (e *appendEntry) mixed() bool {
	k, f := &e.known, &e.fresh
	types := 0
	for _, n := range []int{
		len(k.floats) + len(f.floats),
		len(k.histograms) + len(f.histograms) + len(k.customHistograms) + len(f.customHistograms),
		len(k.floatHistograms) + len(f.floatHistograms) + len(k.customFloatHists) + len(f.customFloatHists),
	} {
		if n > 0 {
			types++
		}
	}
	return types > 1
}

func (a *appending) decide(u undecided) error {
	a.pos = u.pos
	if u.s != nil {
		return a.sample(u.s, u.x)
	}
	return a.freshSample(u.fresh, u.x)
}

// each calls f for every sample, in the order of positions.
func each(s *samples, f func(chunks.HeadSeriesRef, storage.Sample) error) error {
	for i := range s.floats {
		x := &s.floats[i]
		if err := f(x.Ref, storage.Sample{T: x.T, V: x.V}); err != nil {
			return err
		}
	}
	hs := func(hs []record.RefHistogramSample) error {
		for i := range hs {
			if err := f(hs[i].Ref, storage.Sample{T: hs[i].T, H: hs[i].H}); err != nil {
				return err
			}
		}
		return nil
	}
	fhs := func(hs []record.RefFloatHistogramSample) error {
		for i := range hs {
			if err := f(hs[i].Ref, storage.Sample{T: hs[i].T, FH: hs[i].FH}); err != nil {
				return err
			}
		}
		return nil
	}
	if err := hs(s.histograms); err != nil {
		return err
	}
	if err := fhs(s.floatHistograms); err != nil {
		return err
	}
	if err := hs(s.customHistograms); err != nil {
		return err
	}
	return fhs(s.customFloatHists)
}

func (a *appending) refuse(r Reason) { a.r.Refused = append(a.r.Refused, Refusal{a.pos, r}) }

// sample decides on a sample of a series in the table and stores it.
func (a *appending) sample(s *series, x storage.Sample) error {
	if !valid(x) {
		a.refuse(Invalid)
		return nil
	}
	lastT := s.lastT.Load()
	r, effect, err := a.f.admit(&s.ref, s.labels, lastT, x)
	if err != nil {
		return err
	}
	if r != Accepted {
		a.refuse(r)
	}
	if !effect {
		return nil
	}
	return a.store(s, lastT, x)
}

func (a *appending) freshSample(n *freshSeries, x storage.Sample) error {
	if n.s == nil {
		n.s = a.f.table.Load().byLabels(n.labels) // the entry may name it twice
	}
	if n.s != nil {
		return a.sample(n.s, x)
	}
	if n.bad || !valid(x) {
		a.refuse(Invalid)
		return nil
	}
	r, effect, err := a.f.admit(nil, n.labels, a.f.dropHorizon, x)
	if err != nil {
		return err
	}
	if r != Accepted {
		a.refuse(r)
	}
	if !effect {
		return nil
	}
	n.s = a.f.table.Load().add(n.labels, a.f.dropHorizon)
	return a.store(n.s, a.f.dropHorizon, x)
}

func (a *appending) store(s *series, lastT int64, x storage.Sample) error {
	x = typed(x, s.kind)
	if err := a.app.Append(&s.ref, s.labels, x); err != nil {
		return err
	}
	// TSDB takes a sample as out of order also if it is more than half a partition
	// behind the newest of its head, whatever its series has.
	if x.T <= lastT || x.T < horizon(a.f.maxT.Load(), storage.NoTime, 0) {
		a.late += storage.ChunkBytes(x)
	}
	if x.T <= lastT {
		return nil
	}
	s.lastT.Store(x.T)
	s.kind = kindOf(x)
	if x.T > a.f.maxT.Load() {
		a.f.maxT.Store(x.T)
		a.f.updateFloor()
	}
	return nil
}

// exemplars adds the exemplars of series that exist now. One that the ring does
// not take is dropped, as in Prometheus.
func (a *appending) exemplars(e *appendEntry) {
	add := func(s *series, x record.RefExemplar) {
		if s != nil {
			a.f.exemplars.add(s.labels, exemplar.Exemplar{Labels: x.Labels, Value: x.V, Ts: x.T, HasTs: true})
		}
	}
	for _, x := range e.known.exemplars {
		add(a.f.table.Load().byID(uint64(x.Ref)), x)
	}
	for _, x := range e.fresh.exemplars {
		if uint64(x.Ref) < uint64(len(a.fresh)) {
			add(a.fresh[x.Ref].s, x)
		}
	}
}

// storable tells whether TSDB takes the labels: not empty, sorted, each name
// once, no empty value.
func storable(ls labels.Labels) bool {
	ok, last := !ls.IsEmpty(), ""
	ls.Range(func(l labels.Label) {
		ok = ok && l.Name > last && l.Value != ""
		last = l.Name
	})
	return ok
}

// maxTimestamp bounds timestamps either way, in milliseconds: 17 million years.
// Far beyond, TSDB's arithmetic wraps round and it refuses the sample, which
// would stop every node.
const maxTimestamp = int64(1) << 49

// valid tells whether TSDB takes the timestamp and the histogram. It is a pure
// function of the sample, so all nodes agree.
func valid(x storage.Sample) bool {
	switch {
	case x.T < -maxTimestamp || x.T > maxTimestamp:
		return false
	case x.H != nil:
		return x.H.Validate() == nil
	case x.FH != nil:
		return x.FH.Validate() == nil
	default:
		return true
	}
}
