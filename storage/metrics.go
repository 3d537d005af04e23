// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/tsdb"
)

type metrics struct {
	freezes, flushes, merges, cleans, deletes prometheus.Counter
	flushFailures, mergeFailures              prometheus.Counter
	freezeSeconds, flushSeconds, mergeSeconds prometheus.Histogram
	stallSeconds, scrubs                      prometheus.Counter
	scrubSeconds, damaged                     prometheus.Gauge
	compactor                                 *tsdb.CompactorMetrics
}

// newMetrics registers the metrics of a store. Gauges read the store when
// scraped, so they cannot drift from it.
func newMetrics(reg prometheus.Registerer, s *Store) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "deucalion_storage_" + name, Help: help})
	}
	seconds := func(name, help string) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{
			Name: "deucalion_storage_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0005, 4, 12),
		})
	}
	gauge := func(name, help string, v func(*Store) float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "deucalion_storage_" + name, Help: help}, func() float64 {
			s.mu.RLock()
			defer s.mu.RUnlock()
			return v(s)
		})
	}
	gauge("active_series", "Series in the active memtable.", func(s *Store) float64 {
		if s.active == nil {
			return 0
		}
		return float64(s.active.head.NumSeries())
	})
	gauge("frozen_memtables", "Frozen memtables that wait to be flushed.", func(s *Store) float64 { return float64(len(s.frozen)) })
	gauge("frozen_memtables_limit", "Frozen memtables at which writes wait for the flusher.", func(*Store) float64 { return maxFrozen })
	gauge("blocks", "Blocks on disk.", func(s *Store) float64 { return float64(len(s.blocks)) })
	gauge("blocks_bytes", "Bytes of all blocks on disk.", func(s *Store) float64 { return float64(s.blocksSizeLocked()) })
	gauge("blocks_with_tombstones", "Blocks that hold deleted samples.", func(s *Store) float64 {
		n := 0
		for _, b := range s.blocks {
			if b.tombstoned() {
				n++
			}
		}
		return float64(n)
	})
	return &metrics{
		freezes:       counter("freezes_total", "Memtables frozen."),
		flushes:       counter("flushes_total", "Memtables flushed into blocks."),
		merges:        counter("merges_total", "Merges of blocks."),
		cleans:        counter("cleaned_blocks_total", "Blocks rewritten without their deleted samples."),
		deletes:       counter("deletes_total", "Deletes applied."),
		flushFailures: counter("flush_failures_total", "Flushes that failed and are tried again."),
		mergeFailures: counter("merge_failures_total", "Merges that failed and are tried again."),
		freezeSeconds: seconds("freeze_seconds", "Time that a freeze held up the applier."),
		flushSeconds:  seconds("flush_seconds", "Time to write a memtable into blocks."),
		mergeSeconds:  seconds("merge_seconds", "Time of a merge."),
		stallSeconds:  counter("freeze_stall_seconds_total", "Time that the applier waited because too many memtables were unflushed."),
		scrubs:        counter("scrubs_total", "Comparisons of all blocks with their checksums."),
		scrubSeconds:  f.NewGauge(prometheus.GaugeOpts{Name: "deucalion_storage_scrub_seconds", Help: "Time of the last scrub."}),
		damaged:       f.NewGauge(prometheus.GaugeOpts{Name: "deucalion_storage_damaged", Help: "1 if a block on the disk is not what was written."}),
		compactor:     tsdb.NewCompactorMetrics(reg),
	}
}
