// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/index"
)

// Stats gives the cardinality statistics that Prometheus shows of its head, here
// of the replicated series table: so they are the same on every node. It walks
// all series. The CardinalityMetricsStats count series by the values of label.
func (f *FSM) Stats(label string, limit int) (*tsdb.Stats, error) {
	byValue, names, pairs := map[string]uint64{}, map[string]map[string]struct{}{}, map[string]uint64{}
	bytes := map[string]uint64{}
	series := f.table.Load().all()
	for _, ls := range series {
		ls.Range(func(l labels.Label) {
			if l.Name == label {
				byValue[l.Value]++
			}
			if names[l.Name] == nil {
				names[l.Name] = map[string]struct{}{}
			}
			names[l.Name][l.Value] = struct{}{}
			pairs[l.Name+"="+l.Value]++
			bytes[l.Name] += uint64(len(l.Value))
		})
	}
	values := make(map[string]uint64, len(names))
	for name, vs := range names {
		values[name] = uint64(len(vs))
	}
	s := &tsdb.Stats{NumSeries: uint64(len(series)), MaxTime: f.maxT.Load(), IndexPostingStats: &index.PostingsStats{
		CardinalityMetricsStats: top(byValue, limit), CardinalityLabelStats: top(values, limit),
		LabelValueStats: top(bytes, limit), LabelValuePairsStats: top(pairs, limit), NumLabelPairs: len(pairs),
	}}
	var err error
	s.MinTime, err = f.StartTime()
	return s, err
}

// top returns the largest counts, largest first.
func top(counts map[string]uint64, limit int) []index.Stat {
	out := make([]index.Stat, 0, len(counts))
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, index.Stat{Name: k, Count: counts[k]})
	}
	slices.SortStableFunc(out, func(a, b index.Stat) int { return cmp.Compare(b.Count, a.Count) })
	return out[:min(limit, len(out))]
}

// StartTime is the oldest timestamp that a query may find, in milliseconds, or
// the largest int64 if there is none.
func (f *FSM) StartTime() (int64, error) {
	return max(f.store.StartTime(), f.store.Cutoff()), nil
}
