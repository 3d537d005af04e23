// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"golang.org/x/sync/errgroup"

	"github.com/deucaliondb/deucalion/storage"
)

// Proposer puts entries into the log. The implementation is in package cluster.
type Proposer interface {
	// Propose returns when the entry is committed and applied on the node that
	// proposed it to Raft, or ctx ends. It may put the entry into the log more
	// than once: entries are idempotent. It keeps entry.
	Propose(ctx context.Context, entry []byte) (Result, error)
	// ReadIndex returns a log index that covers every entry acknowledged before
	// the call.
	ReadIndex(ctx context.Context) (uint64, error)
}

const (
	// maxEntrySamples and maxEntrySeries bound an entry to about 256 KiB: above,
	// Raft costs more CPU for each byte (facts/raft.md decision 4).
	maxEntrySamples = 16 << 10
	maxEntrySeries  = 1 << 10
	// maxUnknown is how often a batch is encoded anew because ids were dropped.
	maxUnknown = 3
	// proposeAtOnce is how many entries of one batch are under way together.
	proposeAtOnce = 4
)

var errUnknownIDs = errors.New("series ids vanish again and again")

// Commit puts what was collected into the log and returns when it is applied. A
// request with many samples becomes several entries, each series within one.
// On an error nothing is known: some entries may be, or may become, committed;
// to send everything again is harmless. The batch cannot be used after, but for
// Release.
func (b *Batch) Commit(ctx context.Context, p Proposer) (Outcome, error) {
	if err := b.settleDoubtful(ctx, p); err != nil {
		return Outcome{}, err
	}
	e := &b.entry
	if b.ambiguous() {
		e = e.relabel(b.labelsByID())
	}
	work := e.split(b)
	for round := 0; len(work) > 0; round++ {
		if round == maxUnknown {
			return Outcome{}, errUnknownIDs
		}
		results := make([]Result, len(work))
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(proposeAtOnce)
		for i, e := range work {
			g.Go(func() (err error) {
				results[i], err = p.Propose(gctx, e.encode())
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return Outcome{}, err
		}
		var again []*appendEntry
		for i, r := range results {
			switch {
			case r.Err != "":
				return Outcome{}, fmt.Errorf("append refused: %s", r.Err)
			case r.Unknown:
				again = append(again, work[i].relabel(b.labelsByID()).split(b)...)
			default:
				b.collect(work[i], r)
			}
		}
		work = again
	}
	b.rememberKeys()
	return b.out, nil
}

// ambiguous tells whether the series table changed while the batch was filled,
// so that it may name one series by its id and by its labels.
func (b *Batch) ambiguous() bool {
	if len(b.known) == 0 || len(b.entry.series) == 0 {
		return false
	}
	t := b.f.table.Load()
	return slices.ContainsFunc(b.known, func(s *series) bool { return s.dropped.Load() }) ||
		slices.ContainsFunc(b.entry.series, func(s record.RefSeries) bool { return t.byLabels(s.Labels) != nil })
}

// settleDoubtful confirms the verdicts that this node's state gave. If samples
// were erased since, the samples go into the log like any other.
func (b *Batch) settleDoubtful(ctx context.Context, p Proposer) error {
	if len(b.doubtful) == 0 {
		return nil
	}
	index, err := p.ReadIndex(ctx)
	if err != nil {
		return fmt.Errorf("confirm samples that are there already: %w", err)
	}
	if err := b.f.Wait(ctx, index); err != nil {
		return err
	}
	still := b.f.erased.Load() == b.basis
	for _, d := range b.doubtful {
		switch {
		case !still:
			b.entry.known.add(chunks.HeadSeriesRef(d.s.id), d.x)
		case d.r == Accepted:
			b.f.m.predecided.WithLabelValues("retry").Inc()
			b.accept(d.x)
		default:
			b.f.m.predecided.WithLabelValues(d.r.String()).Inc()
			b.refuse(d.s.labels, d.x.T, d.r)
		}
	}
	if still {
		b.out.Index = max(b.out.Index, index)
	}
	return nil
}

// collect turns positions of refused samples into labels, and counts.
func (b *Batch) collect(e *appendEntry, r Result) {
	b.out.Index = max(b.out.Index, r.Index)
	if len(r.Refused) == 0 {
		floats := len(e.known.floats) + len(e.fresh.floats)
		b.out.Floats += floats
		b.out.Histograms += e.known.len() + e.fresh.len() - floats
		return
	}
	refused := make(map[uint32]Reason, len(r.Refused))
	for _, x := range r.Refused {
		refused[x.Pos] = x.Reason
	}
	byID := b.labelsByID()
	pos := uint32(0)
	count := func(name func(chunks.HeadSeriesRef) labels.Labels) func(chunks.HeadSeriesRef, storage.Sample) error {
		return func(ref chunks.HeadSeriesRef, x storage.Sample) error {
			if reason, ok := refused[pos]; ok {
				b.refuse(name(ref), x.T, reason)
			} else {
				b.accept(x)
			}
			pos++
			return nil
		}
	}
	_ = each(&e.known, count(func(ref chunks.HeadSeriesRef) labels.Labels { return byID[uint64(ref)] }))
	_ = each(&e.fresh, count(func(ref chunks.HeadSeriesRef) labels.Labels { return e.series[ref].Labels }))
}

func (b *Batch) labelsByID() map[uint64]labels.Labels {
	m := make(map[uint64]labels.Labels, len(b.known))
	for _, s := range b.known {
		m[s.id] = s.labels
	}
	return m
}

// rememberKeys makes the next request with the same series cheap. On a follower
// the entry may not be applied yet; then a later request does it.
func (b *Batch) rememberKeys() {
	t := b.f.table.Load()
	for _, k := range b.keys {
		if s := t.byLabels(k.labels); s != nil {
			t.keys.put(k.key, s)
		}
	}
}

// relabel turns samples of known series into samples of series that come with
// their labels. All ids of a batch are in names.
func (e *appendEntry) relabel(names map[uint64]labels.Labels) *appendEntry {
	out := &appendEntry{series: slices.Clone(e.series), fresh: e.fresh, metadata: e.metadata}
	at := make(map[string]chunks.HeadSeriesRef, len(out.series))
	for i, s := range out.series {
		at[string(s.Labels.Bytes(nil))] = chunks.HeadSeriesRef(i)
	}
	ref := func(id chunks.HeadSeriesRef) chunks.HeadSeriesRef {
		ls := names[uint64(id)]
		key := string(ls.Bytes(nil))
		r, ok := at[key]
		if !ok {
			r = chunks.HeadSeriesRef(len(out.series))
			at[key] = r
			out.series = append(out.series, record.RefSeries{Ref: r, Labels: ls})
		}
		return r
	}
	_ = each(&e.known, func(id chunks.HeadSeriesRef, x storage.Sample) error {
		out.fresh.add(ref(id), x)
		return nil
	})
	for _, x := range e.known.exemplars {
		x.Ref = ref(x.Ref)
		out.fresh.exemplars = append(out.fresh.exemplars, x)
	}
	return out
}

func (s *samples) add(ref chunks.HeadSeriesRef, x storage.Sample) {
	switch {
	case x.H != nil && x.H.UsesCustomBuckets():
		s.customHistograms = append(s.customHistograms, record.RefHistogramSample{Ref: ref, T: x.T, H: x.H})
	case x.H != nil:
		s.histograms = append(s.histograms, record.RefHistogramSample{Ref: ref, T: x.T, H: x.H})
	case x.FH != nil && x.FH.UsesCustomBuckets():
		s.customFloatHists = append(s.customFloatHists, record.RefFloatHistogramSample{Ref: ref, T: x.T, FH: x.FH})
	case x.FH != nil:
		s.floatHistograms = append(s.floatHistograms, record.RefFloatHistogramSample{Ref: ref, T: x.T, FH: x.FH})
	default:
		s.floats = append(s.floats, record.RefSample{Ref: ref, T: x.T, V: x.V})
	}
}

// sortFloats brings samples into the order of series and time, which also makes
// the deltas of the record small. Equal keys keep their order.
func sortFloats(s []record.RefSample) {
	less := func(a, b record.RefSample) int {
		if c := cmp.Compare(a.Ref, b.Ref); c != 0 {
			return c
		}
		return cmp.Compare(a.T, b.T)
	}
	if !slices.IsSortedFunc(s, less) {
		slices.SortStableFunc(s, less)
	}
}
