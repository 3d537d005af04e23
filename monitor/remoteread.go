// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"errors"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/deucaliondb/deucalion/fsm"
)

// RemoteReader answers queries from the replicated state and from the remote_read stores of the configuration file,
// merged. The stores are best effort, as in Prometheus: their errors are warnings. Goroutine-safe.
type RemoteReader struct {
	local  *fsm.FSM
	stores *remote.Storage
	used   atomic.Bool
}

var _ storage.SampleAndChunkQueryable = (*RemoteReader)(nil)

// NewRemoteReader has no stores without ApplyConfig. The metrics of its client are among LibraryMetrics.
func NewRemoteReader(f *fsm.FSM, logger *slog.Logger) *RemoteReader {
	// It is also Prometheus's writer, which has nothing to do here and so needs neither a directory nor a deadline.
	return &RemoteReader{local: f, stores: remote.NewStorage(logger, nil, localStart(f), "", time.Second, nil, false)}
}

// localMargin is how long after the first sample, of any series, the stores are still asked, unless they are asked for
// everything (read_recent): scraping begins with one target and not with all. It is Prometheus's.
const localMargin = 4 * time.Hour

// localStart tells from when on f alone is asked.
func localStart(f *fsm.FSM) func() (int64, error) {
	return func() (int64, error) {
		start, err := f.StartTime()
		if margin := localMargin.Milliseconds(); start < math.MaxInt64-margin { // else there is no sample
			start += margin
		}
		return start, err
	}
}

// ApplyConfig takes the remote_read stores of c. On an error nothing changes.
func (r *RemoteReader) ApplyConfig(c *config.Config) error {
	only := &config.Config{GlobalConfig: c.GlobalConfig, RemoteReadConfigs: c.RemoteReadConfigs}
	if err := r.stores.ApplyConfig(only); err != nil {
		return err
	}
	r.used.Store(len(c.RemoteReadConfigs) > 0)
	return nil
}

// Close ends what the library runs in the background.
func (r *RemoteReader) Close() error { return r.stores.Close() }

// Querier implements storage.Queryable.
func (r *RemoteReader) Querier(mint, maxt int64) (storage.Querier, error) {
	local, err := r.local.Querier(mint, maxt)
	if err != nil || !r.used.Load() {
		return local, err
	}
	others, err := r.stores.Querier(mint, maxt)
	if err != nil {
		return nil, errors.Join(err, local.Close())
	}
	return storage.NewMergeQuerier([]storage.Querier{local}, []storage.Querier{others}, storage.ChainedSeriesMerge), nil
}

// ChunkQuerier implements storage.ChunkQueryable.
func (r *RemoteReader) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	local, err := r.local.ChunkQuerier(mint, maxt)
	if err != nil || !r.used.Load() {
		return local, err
	}
	others, err := r.stores.ChunkQuerier(mint, maxt)
	if err != nil {
		return nil, errors.Join(err, local.Close())
	}
	return storage.NewMergeChunkQuerier([]storage.ChunkQuerier{local}, []storage.ChunkQuerier{others},
		storage.NewCompactingChunkSeriesMerger(storage.ChainedSeriesMerge)), nil
}
