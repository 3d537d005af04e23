// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// SearchOptions configure /api/v1/search/*, an experiment of Prometheus.
type SearchOptions struct {
	Enable bool
	// MaxLimit is the largest limit that a request may name; 0: any.
	MaxLimit int
}

// searchable adds storage.Searcher to the queriers of a storage.
type searchable struct {
	storage.SampleAndChunkQueryable
}

func (s searchable) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.SampleAndChunkQueryable.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return searcher{q}, nil
}

type searcher struct{ storage.Querier }

var _ storage.Searcher = searcher{}

// SearchLabelNames implements storage.Searcher.
func (s searcher) SearchLabelNames(ctx context.Context, hints *storage.SearchHints, matchers ...*labels.Matcher) storage.SearchResultSet {
	names, warnings, err := s.LabelNames(ctx, &storage.LabelHints{}, matchers...)
	if err != nil {
		return storage.ErrSearchResultSet(err, warnings)
	}
	return storage.NewSearchResultSetFromSlice(storage.ApplySearchHints(names, hints), warnings)
}

// SearchLabelValues implements storage.Searcher.
func (s searcher) SearchLabelValues(ctx context.Context, name string, hints *storage.SearchHints, matchers ...*labels.Matcher) storage.SearchResultSet {
	values, warnings, err := s.LabelValues(ctx, name, &storage.LabelHints{}, matchers...)
	if err != nil {
		return storage.ErrSearchResultSet(err, warnings)
	}
	return storage.NewSearchResultSetFromSlice(storage.ApplySearchHints(values, hints), warnings)
}
