// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// tally is what one sender counts.
type tally struct {
	samples, bytes int
	latencies      []time.Duration // of acknowledged requests
	errors         map[string]int
}

func (t *tally) add(samples, bytes int, latency time.Duration) {
	t.samples += samples
	t.bytes += bytes
	t.latencies = append(t.latencies, latency)
}

// Report is the outcome of a load.
type Report struct {
	Samples  int            // acknowledged
	Bytes    int            // of acknowledged requests, as sent
	Requests int            // acknowledged
	Elapsed  time.Duration  // from the first request to the last answer
	P50, P99 time.Duration  // latency of acknowledged requests
	Max      time.Duration  // the same
	Errors   map[string]int // what else happened, and how often
}

func newReport(tallies []tally, elapsed time.Duration) *Report {
	r := &Report{Elapsed: elapsed, Errors: map[string]int{}}
	var all []time.Duration
	for _, t := range tallies {
		r.Samples += t.samples
		r.Bytes += t.bytes
		all = append(all, t.latencies...)
		for what, n := range t.errors {
			r.Errors[what] += n
		}
	}
	slices.Sort(all)
	r.Requests = len(all)
	r.P50, r.P99, r.Max = quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1)
	return r
}

// quantile of sorted values; 0 when there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// PerSecond is the rate of acknowledged samples.
func (r *Report) PerSecond() float64 { return float64(r.Samples) / r.Elapsed.Seconds() }

// String shows the report on a few lines.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "acknowledged  %d samples in %d requests, %.1f s: %.0f samples/s\n",
		r.Samples, r.Requests, r.Elapsed.Seconds(), r.PerSecond())
	fmt.Fprintf(&b, "latency       p50 %s, p99 %s, max %s\n", round(r.P50), round(r.P99), round(r.Max))
	fmt.Fprintf(&b, "sent          %.1f bytes/sample\n", float64(r.Bytes)/float64(max(r.Samples, 1)))
	for _, what := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(&b, "not so well   %s: %d\n", what, r.Errors[what])
	}
	return b.String()
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
