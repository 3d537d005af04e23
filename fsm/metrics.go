// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/deucaliondb/deucalion/storage"
)

type metrics struct {
	entries          *prometheus.CounterVec
	refused          *prometheus.CounterVec
	samples          prometheus.Counter
	unknownIDs       prometheus.Counter
	imported         *prometheus.CounterVec
	seriesDropped    prometheus.Counter
	predecided       *prometheus.CounterVec
	snapshotHold     prometheus.Histogram
	snapshotPersist  prometheus.Histogram
	snapshotFailures prometheus.Counter
	taskFailures     prometheus.Counter
	digestFailures   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, f *FSM) *metrics {
	p := promauto.With(reg)
	opts := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "deucalion_fsm_" + name, Help: help}
	}
	gauge := func(name, help string, v func() float64) {
		p.NewGaugeFunc(prometheus.GaugeOpts{Name: "deucalion_fsm_" + name, Help: help}, v)
	}
	gauge("applied_index", "Log index up to which entries are applied.", func() float64 { return float64(f.applied.index.Load()) })
	gauge("series", "Series in the replicated series table.", func() float64 { return float64(f.table.Load().n.Load()) })
	gauge("max_time_seconds", "Largest timestamp accepted; NaN before the first sample.", func() float64 {
		t := f.maxT.Load()
		if t == storage.NoTime {
			return math.NaN()
		}
		return float64(t) / 1000
	})
	gauge("failed", "1 if a broken invariant stopped this node from applying the log.", func() float64 {
		if f.Err() != nil {
			return 1
		}
		return 0
	})
	gauge("tasks_running", "Cleans and user snapshots under way on this node.", func() float64 { return float64(f.tasks.running()) })
	gauge("tasks_limit", "Cleans and user snapshots that may be under way at once; further ones are refused.", func() float64 { return maxRunningTasks })
	m := &metrics{
		entries:       p.NewCounterVec(opts("entries_applied_total", "Log entries applied since the start."), []string{"kind"}),
		refused:       p.NewCounterVec(opts("samples_refused_total", "Samples of applied entries that were refused."), []string{"reason"}),
		samples:       p.NewCounter(opts("samples_applied_total", "Samples of applied entries that were accepted, retries included.")),
		unknownIDs:    p.NewCounter(opts("unknown_id_entries_total", "Entries refused as a whole because they named a series that was dropped.")),
		imported:      p.NewCounterVec(opts("samples_imported_total", "Samples of imported blocks, by what became of them."), []string{"result"}),
		seriesDropped: p.NewCounter(opts("series_dropped_total", "Idle series dropped from the series table.")),
		predecided:    p.NewCounterVec(opts("samples_predecided_total", "Samples that this node, as proposer, kept out of the log because its own state decides them."), []string{"reason"}),
		snapshotHold: p.NewHistogram(prometheus.HistogramOpts{
			Name: "deucalion_fsm_snapshot_seconds", Help: "Time that taking a snapshot held up the applier.",
			Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5},
		}),
		snapshotPersist: p.NewHistogram(prometheus.HistogramOpts{
			Name: "deucalion_fsm_snapshot_persist_seconds", Help: "Time to write a snapshot, in the background.",
			Buckets: prometheus.ExponentialBuckets(0.01, 3, 10),
		}),
		snapshotFailures: p.NewCounter(opts("snapshot_failures_total", "Snapshots that could not be written.")),
		taskFailures:     p.NewCounter(opts("task_failures_total", "Cleans and user snapshots that failed on this node.")),
		digestFailures:   p.NewCounter(opts("digest_failures_total", "Digests that this node could not compute: it may be unable to read its own data.")),
	}
	for _, r := range []Reason{TooOld, OutOfOrder, Duplicate, Invalid} {
		m.refused.WithLabelValues(r.String())
	}
	for _, r := range []string{"added", "duplicate"} {
		m.imported.WithLabelValues(r)
	}
	for _, r := range []string{TooOld.String(), Duplicate.String(), "retry"} {
		m.predecided.WithLabelValues(r)
	}
	return m
}

func (m *metrics) countRefused(rs []Refusal) {
	for _, r := range rs {
		m.refused.WithLabelValues(r.Reason.String()).Inc()
	}
}
