// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	promstorage "github.com/prometheus/prometheus/storage"
)

// Querier implements storage.Queryable of Prometheus over the replicated state.
func (f *FSM) Querier(mint, maxt int64) (promstorage.Querier, error) {
	return f.store.Querier(mint, maxt)
}

// ChunkQuerier implements storage.ChunkQueryable.
func (f *FSM) ChunkQuerier(mint, maxt int64) (promstorage.ChunkQuerier, error) {
	return f.store.ChunkQuerier(mint, maxt)
}

// ExactQueryable is for readers of raw samples, such as remote read: see
// storage.Store.ExactQuerier.
func (f *FSM) ExactQueryable() promstorage.SampleAndChunkQueryable { return exactQueryable{f} }

type exactQueryable struct{ f *FSM }

func (q exactQueryable) Querier(mint, maxt int64) (promstorage.Querier, error) {
	return q.f.store.ExactQuerier(mint, maxt)
}

func (q exactQueryable) ChunkQuerier(mint, maxt int64) (promstorage.ChunkQuerier, error) {
	return q.f.store.ChunkQuerier(mint, maxt)
}
