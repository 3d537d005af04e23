// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// libraryMetrics begin the names of metrics that Prometheus's packages register with the global registry, whatever they
// are told. Those of storage/remote are not all among them: its *_in_total count an appender that is not used here.
var libraryMetrics = [...]string{
	"net_conntrack_",
	"prometheus_remote_read_client_",
	"prometheus_remote_storage_string_interner_",
	"prometheus_template_",
	"prometheus_treecache_",
}

// LibraryMetrics exports what Prometheus's packages register with the global registry.
type LibraryMetrics struct{}

// Describe implements prometheus.Collector. Nothing is promised: the labels are the library's.
func (LibraryMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (LibraryMetrics) Collect(out chan<- prometheus.Metric) {
	if global, ok := prometheus.DefaultRegisterer.(prometheus.Collector); ok {
		collectNamed(global, out, func(name string) bool {
			return slices.ContainsFunc(libraryMetrics[:], func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		})
	}
}

// collectNamed passes on the metrics of c whose names are wanted.
func collectNamed(c prometheus.Collector, out chan<- prometheus.Metric, wanted func(name string) bool) {
	in := make(chan prometheus.Metric)
	go func() {
		c.Collect(in)
		close(in)
	}()
	for x := range in {
		_, rest, _ := strings.Cut(x.Desc().String(), `fqName: "`)
		name, _, _ := strings.Cut(rest, `"`)
		if wanted(name) {
			out <- x
		}
	}
}
