// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

// shipMetrics are the metrics of a Shipper, and those of its queues, which come and go.
type shipMetrics struct {
	position *prometheus.GaugeVec
	behind   *prometheus.GaugeVec
	skipped  *prometheus.CounterVec
	lost     *prometheus.CounterVec
	rewinds  *prometheus.CounterVec
	refused  *prometheus.CounterVec
	failures *prometheus.CounterVec

	mu     sync.Mutex // protects the following
	queues map[*queue]struct{}
}

func newShipMetrics(reg prometheus.Registerer, f *fsm.FSM) *shipMetrics {
	p := promauto.With(reg)
	gauge := func(name, help string) *prometheus.GaugeVec {
		return p.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"remote_name"})
	}
	counter := func(name, help, label string) *prometheus.CounterVec {
		return p.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m := &shipMetrics{
		position: gauge("deucalion_remote_storage_position", "Log index up to which everything has been delivered to the remote store. On the leader only."),
		behind:   gauge("deucalion_remote_storage_behind_entries", "Log entries that the queue of the remote store has not taken up yet. On the leader only."),
		skipped:  counter("deucalion_remote_storage_skipped_entries_total", "Log entries that the remote store will never get, for this node's log does not hold them any more.", "remote_name"),
		lost:     counter("deucalion_remote_storage_lost_samples_total", "Samples that the remote store will never get, for their series had been dropped from the series table before they were read.", "remote_name"),
		rewinds:  counter("deucalion_remote_storage_rewinds_total", "Times a queue had thrown data away, which was then read and sent again.", "remote_name"),
		refused:  counter("deucalion_remote_storage_repeats_refused_total", "Samples that the remote store refused while they may have been sent before, by an earlier leader.", "remote_name"),
		failures: counter("deucalion_remote_storage_failures_total", "Failed steps of shipping, which are tried again: read (of the log), queue (start of one), position (noting it in the log).", "step"),
		queues:   map[*queue]struct{}{},
	}
	for _, step := range []string{"read", "queue", "position"} {
		m.failures.WithLabelValues(step)
	}
	p.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "prometheus_remote_storage_highest_timestamp_in_seconds",
		Help: "Highest timestamp that has been accepted, in seconds since epoch. 0 when no data has been received yet.",
	}, func() float64 {
		if t := f.MaxTime(); t != storage.NoTime {
			return float64(t / 1000)
		}
		return 0
	})
	if reg != nil {
		reg.MustRegister(m)
	}
	return m
}

// begin exports the counters of a remote store from the start: an alert on a rate needs the zero.
func (m *shipMetrics) begin(name string) {
	for _, v := range []*prometheus.CounterVec{m.skipped, m.lost, m.rewinds, m.refused} {
		v.WithLabelValues(name)
	}
}

func (m *shipMetrics) add(q *queue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queues[q] = struct{}{}
}

func (m *shipMetrics) remove(q *queue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.queues, q)
}

// Describe implements prometheus.Collector. Nothing is promised: the queues come and go.
func (m *shipMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. What the queues say of a WAL is left out, for there is none, and so is the
// highest timestamp, which is the same for all.
func (m *shipMetrics) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for q := range m.queues {
		collectNamed(q.registry, out, func(name string) bool {
			return strings.HasPrefix(name, "prometheus_remote_storage_") && name != "prometheus_remote_storage_highest_timestamp_in_seconds"
		})
	}
}
