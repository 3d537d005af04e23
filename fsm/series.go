// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/deucaliondb/deucalion/storage"
)

// valueKind is the kind of a series' newest sample. A float stale marker takes
// the type of what it ends; TSDB forgets that type at each freeze, so the log
// state keeps it.
type valueKind uint8

const (
	floatKind          valueKind = 0
	histogramKind      valueKind = 1
	floatHistogramKind valueKind = 2
)

// series is one entry of the series table.
type series struct {
	id     uint64
	labels labels.Labels

	// lastT is the largest timestamp accepted, in milliseconds; after a delete it
	// is only an upper bound of what is stored. The applier writes it.
	lastT   atomic.Int64
	dropped atomic.Bool // no longer in the table: the id means nothing

	// The applier's own.
	kind valueKind
	ref  storage.Ref

	next *series // with the same hash; table.mu protects it
}

const (
	pageBits = 12
	pageSize = 1 << pageBits
)

type page struct {
	series [pageSize]*series
	used   int
}

// table maps ids and labels to series. The applier changes it; proposers look
// labels up.
type table struct {
	hash func(labels.Labels) uint64 // replaced in tests to force collisions
	keys *keyCache

	nextID uint64 // the applier's own
	n      atomic.Int64

	// mu protects the following. The applier, which alone writes, reads pages without it.
	mu     sync.RWMutex
	pages  map[uint64]*page // by id >> pageBits; ids are never used again, so pages come and go
	byHash map[uint64]*series
}

func newTable(hash func(labels.Labels) uint64) *table {
	if hash == nil {
		hash = labels.Labels.Hash
	}
	return &table{hash: hash, keys: newKeyCache(), pages: map[uint64]*page{}, nextID: 1, byHash: map[uint64]*series{}}
}

// byID returns the series, or nil if the id was never given or is dropped.
// Applier only.
func (t *table) byID(id uint64) *series {
	p := t.pages[id>>pageBits]
	if p == nil {
		return nil
	}
	return p.series[id&(pageSize-1)]
}

// lookUp is byID for everybody else. Goroutine-safe.
func (t *table) lookUp(id uint64) *series {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID(id)
}

// byLabels returns the series, or nil. Goroutine-safe.
func (t *table) byLabels(ls labels.Labels) *series {
	h := t.hash(ls)
	t.mu.RLock()
	defer t.mu.RUnlock()
	for s := t.byHash[h]; s != nil; s = s.next {
		if labels.Equal(s.labels, ls) {
			return s
		}
	}
	return nil
}

// add gives labels the next id. Applier only.
func (t *table) add(ls labels.Labels, lastT int64) *series {
	s := t.insert(t.nextID, ls)
	s.lastT.Store(lastT)
	t.nextID++
	return s
}

func (t *table) insert(id uint64, ls labels.Labels) *series {
	s := &series{id: id, labels: ls}
	h := t.hash(ls)
	t.mu.Lock()
	p := t.pages[id>>pageBits]
	if p == nil {
		p = &page{}
		t.pages[id>>pageBits] = p
	}
	p.series[id&(pageSize-1)] = s
	p.used++
	s.next = t.byHash[h]
	t.byHash[h] = s
	t.mu.Unlock()
	t.n.Add(1)
	return s
}

// dropIdle removes the series whose newest sample is below limit. Applier only.
func (t *table) dropIdle(limit int64) (dropped int) {
	for k, p := range t.pages {
		for i, s := range p.series {
			if s == nil || s.lastT.Load() >= limit {
				continue
			}
			t.unlink(s, &p.series[i])
			p.used--
			dropped++
		}
		if p.used == 0 {
			t.mu.Lock()
			delete(t.pages, k)
			t.mu.Unlock()
		}
	}
	t.n.Add(int64(-dropped))
	return dropped
}

// raise makes t the least newest timestamp of all series. Applier only.
func (t *table) raise(lastT int64) {
	for _, p := range t.pages {
		for _, s := range p.series {
			if s != nil && s.lastT.Load() < lastT {
				s.lastT.Store(lastT)
			}
		}
	}
}

func (t *table) unlink(s *series, slot **series) {
	s.dropped.Store(true)
	h := t.hash(s.labels)
	t.mu.Lock()
	defer t.mu.Unlock()
	*slot = nil
	if t.byHash[h] == s {
		if s.next == nil {
			delete(t.byHash, h)
		} else {
			t.byHash[h] = s.next
		}
		return
	}
	for p := t.byHash[h]; p != nil; p = p.next {
		if p.next == s {
			p.next = s.next
			return
		}
	}
}

// seriesState is a series as it stands in a snapshot.
type seriesState struct {
	id     uint64
	lastT  int64
	kind   valueKind
	labels labels.Labels
}

// copy lists all series. Applier only; in no particular order.
func (t *table) copy() []seriesState {
	out := make([]seriesState, 0, t.n.Load())
	for _, p := range t.pages {
		for _, s := range p.series {
			if s != nil {
				out = append(out, seriesState{s.id, s.lastT.Load(), s.kind, s.labels})
			}
		}
	}
	return out
}

// all lists the labels of every series. Goroutine-safe; the labels are shared.
func (t *table) all() []labels.Labels {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]labels.Labels, 0, t.n.Load())
	for _, s := range t.byHash {
		for ; s != nil; s = s.next {
			out = append(out, s.labels)
		}
	}
	return out
}
