// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/deucaliondb/deucalion/test/bench"
)

// printTable writes medians over the rounds, and for CPU the ratios to the stock Prometheus of the same round.
func printTable(w io.Writer, runs []*run) {
	fmt.Fprintln(w, "Median [min..max] over the rounds.")
	fmt.Fprintf(w, "\n%-22s %22s %10s %10s %26s %14s\n", "scenario", "samples/s", "p50 ms", "p99 ms", "Raft log bytes/sample", "snapshot hold")
	scenarios, byScenario := group(runs, func(r *run) string { return r.scenario })
	for _, name := range scenarios {
		rs := byScenario[name]
		fmt.Fprintf(w, "%-22s %22s %10.1f %10.1f %26s %14s\n", name,
			spread(values(rs, func(r *run) float64 { return r.report.PerSecond() }), "%.0f"),
			median(values(rs, func(r *run) float64 { return r.report.P50.Seconds() * 1000 })),
			median(values(rs, func(r *run) float64 { return r.report.P99.Seconds() * 1000 })),
			logBytes(rs), hold(rs))
	}
	printCosts(w, runs)
}

func printCosts(w io.Writer, runs []*run) {
	var rows []row
	stock := map[int]float64{} // CPU of the stock Prometheus by round
	for _, r := range runs {
		for _, x := range r.rows {
			x.scenario = r.scenario
			rows = append(rows, x)
			if x.role == stockReceives {
				stock[r.round] = x.CPUPerMillion
			}
		}
	}
	names, byRole := group(rows, func(r row) string { return r.scenario + ": " + r.role })
	fmt.Fprintf(w, "\n%-50s %24s %24s %16s %12s\n", "process", "CPU-s per M samples", "ratio to stock", "peak RSS MiB", "disk B/smpl")
	for _, name := range names {
		rs := byRole[name]
		fmt.Fprintf(w, "%-50s %24s %24s %16.0f %12.2f\n", name,
			spread(values(rs, func(r row) float64 { return r.CPUPerMillion }), "%.3f"),
			spread(values(rs, func(r row) float64 { return r.CPUPerMillion / stock[r.round] }), "%.3f"),
			median(values(rs, func(r row) float64 { return bench.MiB(r.Peak) })),
			median(values(rs, func(r row) float64 { return r.DiskPerSample })))
	}
}

func logBytes(rs []*run) string {
	var all []float64
	for _, r := range rs {
		all = append(all, r.log...)
	}
	if len(all) == 0 {
		return "-"
	}
	return spread(all, "%.2f")
}

func hold(rs []*run) string {
	longest := 0.0
	for _, r := range rs {
		longest = max(longest, r.hold)
	}
	if longest == 0 {
		return "-"
	}
	return fmt.Sprintf("<= %.0f ms", longest*1000)
}

// group sorts xs by key, in order of the keys.
func group[X any](xs []X, key func(X) string) ([]string, map[string][]X) {
	groups := map[string][]X{}
	for _, x := range xs {
		groups[key(x)] = append(groups[key(x)], x)
	}
	return slices.Sorted(maps.Keys(groups)), groups
}

func values[X any](xs []X, f func(X) float64) []float64 {
	out := make([]float64, len(xs))
	for i, x := range xs {
		out[i] = f(x)
	}
	return out
}

// median of xs, which must not be empty.
func median(xs []float64) float64 {
	xs = slices.Sorted(slices.Values(xs))
	mid := len(xs) / 2
	if len(xs)%2 == 1 {
		return xs[mid]
	}
	return (xs[mid-1] + xs[mid]) / 2
}

func spread(xs []float64, format string) string {
	if math.IsNaN(median(xs)) {
		return "-"
	}
	return fmt.Sprintf(format+" ["+format+".."+format+"]", median(xs), slices.Min(xs), slices.Max(xs))
}
