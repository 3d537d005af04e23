// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage/remote"
	walrecord "github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"

	"github.com/deucaliondb/deucalion/fsm"
)

// queue is Prometheus's queue manager for one remote store. One goroutine feeds it; close may be called beside.
type queue struct {
	storage  *remote.WriteStorage
	manager  *remote.QueueManager
	client   *shipClient
	registry *prometheus.Registry // the queue's alone
	epoch    int
}

// queueOptions are what the queues of all remote stores have in common.
type queueOptions struct {
	dir           string // of the empty WAL
	flushDeadline time.Duration
	typeAndUnit   bool
	logger        *slog.Logger
	metrics       *shipMetrics
}

// makeEmptyWAL makes the WAL that every queue manager insists on watching, in <dir>/wal.
func makeEmptyWAL(dir string) error {
	wal := filepath.Join(dir, "wal")
	if err := os.RemoveAll(wal); err != nil {
		return err
	}
	if err := os.MkdirAll(wal, 0o777); err != nil {
		return err
	}
	return os.WriteFile(wlog.SegmentName(wal, 0), nil, 0o666)
}

// openQueue starts a queue.
func openQueue(o queueOptions, r *remoteStore) (*queue, error) {
	q := &queue{client: newShipClient(r.client, o.metrics.refused.WithLabelValues(r.name)), registry: prometheus.NewRegistry()}
	logger := slog.New(untilAbandoned{o.logger.Handler(), q.client.abandoned})
	q.storage = remote.NewWriteStorage(logger, q.registry, o.dir, o.flushDeadline, nil, o.typeAndUnit)
	conf := *r.config
	conf.Name, conf.QueueConfig.BatchSendDeadline = r.name, model.Duration(r.batchDeadline())
	err := q.storage.ApplyConfig(&config.Config{
		GlobalConfig: config.GlobalConfig{ExternalLabels: r.external}, RemoteWriteConfigs: []*config.RemoteWriteConfig{&conf},
	})
	if err == nil {
		q.manager, err = managerOf(q.storage)
	}
	if err != nil {
		q.client.abandon()
		return nil, fmt.Errorf("open queue: %w", errors.Join(err, q.storage.Close()))
	}
	q.manager.SetClient(q.client)
	return q, nil
}

// managerOf returns the one queue manager of a storage. The library lends its queues only to its own reader of the WAL,
// and a queue manager cannot be made outside of it: its arguments are of unexported types. Cost: a release of the
// library may rename the field; TestQueueManagerIsReachable and NewShipper notice. May go when the library offers the
// queues, or its constructor.
func managerOf(s *remote.WriteStorage) (*remote.QueueManager, error) {
	field := reflect.ValueOf(s).Elem().FieldByName("queues")
	if !field.IsValid() || field.Type() != reflect.TypeFor[map[string]*remote.QueueManager]() {
		return nil, fmt.Errorf("this version of Prometheus's package remote keeps its queues elsewhere")
	}
	queues := *(*map[string]*remote.QueueManager)(unsafe.Pointer(field.UnsafeAddr()))
	for _, m := range queues {
		return m, nil
	}
	return nil, nil
}

// append hands over what an entry has added. It waits while the queue is full; false means that the queue was closed
// meanwhile, and some of it was not taken.
func (q *queue) append(a *fsm.Added) bool {
	q.manager.StoreSeries(a.Series, q.epoch)
	q.manager.StoreMetadata(a.Metadata)
	q.announce(a)
	return q.manager.Append(a.Floats) && q.manager.AppendHistograms(a.Histograms) &&
		q.manager.AppendFloatHistograms(a.FloatHistograms) && q.manager.AppendExemplars(a.Exemplars)
}

// announce tells the queue how much comes in: it works out from that how many shards it needs.
func (q *queue) announce(a *fsm.Added) {
	app := q.storage.Appender(context.Background())
	for _, x := range a.Floats {
		_, _ = app.Append(0, labels.EmptyLabels(), x.T, 0) // it only counts, here and below
	}
	for _, x := range a.Histograms {
		_, _ = app.AppendHistogram(0, labels.EmptyLabels(), x.T, nil, nil)
	}
	for _, x := range a.FloatHistograms {
		_, _ = app.AppendHistogram(0, labels.EmptyLabels(), x.T, nil, nil)
	}
	for range a.Exemplars {
		_, _ = app.AppendExemplar(0, labels.EmptyLabels(), exemplar.Exemplar{})
	}
	_ = app.Commit()
}

// forget lets go of all series but the remaining ones.
func (q *queue) forget(remaining []walrecord.RefSeries) {
	q.epoch++
	q.manager.UpdateSeriesSegment(remaining, q.epoch)
	q.manager.SeriesReset(q.epoch)
}

// settled tells whether everything that was handed over has been sent, or given up by the rules of the queue.
func (q *queue) settled() (bool, error) {
	families, err := q.registry.Gather()
	if err != nil {
		return false, err
	}
	pending := 0.0
	for _, f := range families {
		switch f.GetName() {
		case "prometheus_remote_storage_samples_pending", "prometheus_remote_storage_histograms_pending", "prometheus_remote_storage_exemplars_pending":
			for _, m := range f.GetMetric() {
				pending += m.GetGauge().GetValue()
			}
		}
	}
	return pending == 0, nil
}

// close ends the queue. It sends what it has until ctx ends, at most for the flush deadline, and returns whether all
// has been sent. Waits for an attempt to be repeated are not cut short: it may last for a flush deadline more.
func (q *queue) close(ctx context.Context) (flushed bool) {
	stop := context.AfterFunc(ctx, q.client.abandon)
	_ = q.storage.Close() // has no errors
	stop()
	flushed = !q.client.lossy()
	q.client.abandon()
	return flushed
}
