// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"maps"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// LabelValues implements storage.Querier: exactly the values of the series that
// match and have a sample in the range.
func (q *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	fromIndex := func(p storage.Querier) ([]string, error) {
		vs, _, err := p.LabelValues(ctx, name, nil, ms...)
		return vs, err
	}
	witness := append(slices.Clone(ms), labels.MustNewMatcher(labels.MatchNotEqual, name, ""))
	return q.exactLabels(ctx, hints, fromIndex, witness, func(l labels.Labels, add func(string) bool) bool {
		return add(l.Get(name))
	})
}

// LabelNames implements storage.Querier: exactly the names of the series that
// match and have a sample in the range.
func (q *querier) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	fromIndex := func(p storage.Querier) ([]string, error) {
		ns, _, err := p.LabelNames(ctx, nil, ms...)
		return ns, err
	}
	witness := ms
	if len(ms) == 0 {
		witness = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".*")}
	}
	return q.exactLabels(ctx, hints, fromIndex, witness, func(l labels.Labels, add func(string) bool) bool {
		fresh := false
		l.Range(func(l labels.Label) { fresh = add(l.Name) || fresh })
		return fresh
	})
}

// exactLabels gathers strings of all tiers. Where a tier lies wholly in the
// range and has no deletes its index is the answer. Elsewhere the index is only
// a superset (deleted or out-of-range samples, and the head ignores
// out-of-order bounds), so each series that would add something must show a
// sample.
func (q *querier) exactLabels(ctx context.Context, hints *storage.LabelHints, fromIndex func(storage.Querier) ([]string, error),
	witness []*labels.Matcher, each func(labels.Labels, func(string) bool) bool,
) ([]string, annotations.Annotations, error) {
	found := map[string]struct{}{}
	var partial []int
	for i, t := range q.tiers {
		if !t.within(q.mint, q.maxt) {
			partial = append(partial, i)
			continue
		}
		vs, err := fromIndex(q.parts[i])
		if err != nil {
			return nil, nil, err
		}
		for _, v := range vs {
			found[v] = struct{}{}
		}
	}
	for _, i := range partial {
		if err := q.witnesses(ctx, q.parts[i], witness, found, each); err != nil {
			return nil, nil, err
		}
	}
	out := slices.Sorted(maps.Keys(found))
	if hints != nil && hints.Limit > 0 && len(out) > hints.Limit {
		out = out[:hints.Limit]
	}
	for i, v := range out {
		out[i] = string([]byte(v)) // the index they came from may be unmapped later
	}
	return out, nil, nil
}

// witnesses adds the strings of those series of one tier that have a sample.
func (q *querier) witnesses(ctx context.Context, p storage.Querier, ms []*labels.Matcher, found map[string]struct{},
	each func(labels.Labels, func(string) bool) bool,
) error {
	missing := func(v string) bool { _, ok := found[v]; return !ok }
	add := func(v string) bool { found[v] = struct{}{}; return true }
	h := &storage.SelectHints{Start: q.mint, End: q.maxt, DisableTrimming: true}
	set := &trimSet{SeriesSet: p.Select(ctx, false, h, ms...), mint: q.mint, maxt: q.maxt, note: q.note}
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		if !each(s.Labels(), missing) {
			continue
		}
		it = s.Iterator(it)
		if it.Next() != chunkenc.ValNone {
			each(s.Labels(), add)
		} else if err := it.Err(); err != nil {
			return err
		}
	}
	return set.Err()
}
