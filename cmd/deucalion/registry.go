// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"

	"github.com/deucaliondb/deucalion/monitor"
)

// newRegistry holds all metrics of the process, with what Prometheus says about its own: runtime, process and version,
// and what its packages tell the global registry alone.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		monitor.LibraryMetrics{},
		versioncollector.NewCollector("deucalion"),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(
			collectors.MetricsGC,
			collectors.MetricsScheduler,
			collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/sync/mutex/wait/total:seconds$`)},
		)),
	)
	return r
}
