// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// maxRing bounds the ring, whatever the settings say: TSDB takes its memory at once, 64 bytes each, and an entry for
// which no node has the memory would end each of them as often as it starts.
const maxRing = 10_000_000

// exemplars is the ring of exemplars: TSDB's, fed from the log alone.
type exemplars struct {
	m *tsdb.ExemplarMetrics

	// mu protects the following.
	mu   sync.RWMutex
	ring *tsdb.CircularExemplarStorage
	size int64
}

func newExemplars(reg prometheus.Registerer) *exemplars {
	e := &exemplars{m: tsdb.NewExemplarMetrics(reg)}
	e.reset(0, nil)
	return e
}

// reset replaces the ring by one with the exemplars xs. Queries see the one or the other.
func (e *exemplars) reset(size int64, xs []exemplarState) {
	size = min(size, maxRing)
	s, err := tsdb.NewCircularExemplarStorage(size, e.m, 0)
	ring, ok := s.(*tsdb.CircularExemplarStorage)
	if err != nil || !ok {
		panic("tsdb.NewCircularExemplarStorage changed: it neither fails nor returns another type in the version in go.mod")
	}
	for _, x := range xs {
		_ = ring.AddExemplar(x.series, x.Exemplar) // as add
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ring, e.size = ring, size
}

// resize keeps the newest exemplars. Applier only.
func (e *exemplars) resize(size int64) {
	if size = min(size, maxRing); size != e.size {
		e.current().Resize(size)
		e.mu.Lock()
		e.size = size
		e.mu.Unlock()
	}
}

func (e *exemplars) current() *tsdb.CircularExemplarStorage {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.ring
}

// add stores an exemplar, unless the ring refuses it (out of order, too long).
func (e *exemplars) add(ls labels.Labels, x exemplar.Exemplar) { _ = e.current().AddExemplar(ls, x) }

// exemplarState is an exemplar as it stands in a snapshot.
type exemplarState struct {
	series labels.Labels
	exemplar.Exemplar
}

// copy lists all exemplars in an order in which add takes them again.
func (e *exemplars) copy() ([]exemplarState, error) {
	var out []exemplarState
	err := e.current().IterateExemplars(func(ls labels.Labels, x exemplar.Exemplar) error {
		out = append(out, exemplarState{ls, x})
		return nil
	})
	if errors.Is(err, storage.ErrExemplarsDisabled) {
		err = nil
	}
	return out, err
}

// ExemplarQuerier implements storage.ExemplarQueryable.
func (f *FSM) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	return f.exemplars.current().ExemplarQuerier(ctx)
}
