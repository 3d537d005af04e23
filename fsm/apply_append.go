// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"errors"
	"fmt"

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
	pos   uint32
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

func (f *FSM) applyAppend(p []byte, r *Result) error {
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
	if err := a.app.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	a.exemplars(e)
	f.metadata.merge(e.metadata)
	f.m.countRefused(r.Refused)
	f.m.samples.Add(float64(int(a.pos) - len(r.Refused)))
	return f.store.MaybeFreeze(f.maxT.Load())
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

func (a *appending) run(e *appendEntry) error {
	at := 0
	err := each(&e.known, func(_ chunks.HeadSeriesRef, x storage.Sample) error {
		s := a.known[at]
		at++
		return a.sample(s, x)
	})
	if err != nil {
		return err
	}
	for _, s := range e.series {
		a.fresh = append(a.fresh, freshSeries{labels: s.Labels, s: a.f.table.Load().byLabels(s.Labels), bad: !storable(s.Labels)})
	}
	return each(&e.fresh, func(ref chunks.HeadSeriesRef, x storage.Sample) error {
		if uint64(ref) >= uint64(len(a.fresh)) {
			return fmt.Errorf("%w: sample of series %d, the entry brings %d", ErrFormat, ref, len(a.fresh))
		}
		return a.freshSample(&a.fresh[ref], x)
	})
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

func (a *appending) refuse(r Reason) { a.r.Refused = append(a.r.Refused, Refusal{a.pos - 1, r}) }

// sample decides on a sample of a series in the table and stores it.
func (a *appending) sample(s *series, x storage.Sample) error {
	a.pos++
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
	a.pos++
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
