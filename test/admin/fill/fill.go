// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package fill makes float samples for tests that care about a few known series, and keeps
// the model of what a server must hold after writes and deletions.
package fill

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/prometheus/prometheus/prompb"

	"github.com/deucaliondb/deucalion/test/client"
)

// Grid is a block of float samples: series {__name__="grid", i, job} with random values at regular times.
type Grid struct {
	Job    string
	Series int
	Start  int64 // ms
	Step   int64 // ms
	Count  int
}

// Make generates the grid; equal seeds give equal values.
func (g Grid) Make(seed uint64) []prompb.TimeSeries {
	rng := rand.New(rand.NewPCG(seed, 0))
	out := make([]prompb.TimeSeries, g.Series)
	for i := range out {
		out[i].Labels = client.Labels("__name__", "grid", "i", fmt.Sprint(i), "job", g.Job)
		for j := range g.Count {
			out[i].Samples = append(out[i].Samples, prompb.Sample{
				Timestamp: g.Start + int64(j)*g.Step, Value: rng.Float64(),
			})
		}
	}
	return out
}

// Merge puts samples over what model has, by time.
func Merge(model client.Data, series []prompb.TimeSeries) {
	for _, ts := range series {
		key := client.Key(ts.Labels)
		at := map[int64]client.Sample{}
		for _, s := range model[key] {
			at[s.T] = s
		}
		for _, s := range ts.Samples {
			at[s.Timestamp] = client.Sample{T: s.Timestamp, Bits: math.Float64bits(s.Value)}
		}
		model[key] = ordered(at)
	}
}

// Erase takes the samples from mint to maxt away from the series of a job, and series which that leaves empty.
func Erase(model client.Data, job string, mint, maxt int64) {
	suffix := fmt.Sprintf("job=%q}", job)
	for key, samples := range model {
		if len(key) < len(suffix) || key[len(key)-len(suffix):] != suffix {
			continue
		}
		at := map[int64]client.Sample{}
		for _, s := range samples {
			if s.T < mint || s.T > maxt {
				at[s.T] = s
			}
		}
		model[key] = ordered(at)
		if len(at) == 0 {
			delete(model, key)
		}
	}
}

func ordered(at map[int64]client.Sample) []client.Sample {
	return slices.SortedFunc(maps.Values(at), func(a, b client.Sample) int { return cmp.Compare(a.T, b.T) })
}
