// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/deucaliondb/deucalion/fsm"
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

// searching marks the context of a search for names of metrics.
type searching struct{}

func markSearch(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		next(w, r.WithContext(context.WithValue(r.Context(), searching{}, true)))
	}
}

// targetsFor gives the handlers of Prometheus their targets. The search for names asks them for nothing but metadata, and
// gets that of what was written, as in /api/v1/metadata: other nodes have other targets.
func (a *API) targetsFor(ctx context.Context, scraping Scraping) v1.TargetRetriever {
	if ctx.Value(searching{}) == nil {
		return scraping
	}
	return describedTarget{scraping, writtenMetadata{fsm: a.cfg.FSM}}
}

// describedTarget is one target that has the metadata of all metrics.
type describedTarget struct {
	v1.TargetRetriever
	metadata scrape.MetricMetadataStore
}

func (d describedTarget) TargetsActive() map[string][]*scrape.Target {
	t := scrape.NewTarget(labels.EmptyLabels(), nil, nil, nil)
	t.SetMetadataStore(d.metadata)
	return map[string][]*scrape.Target{"": {t}}
}

// writtenMetadata is listed by a search, which calls no other method.
type writtenMetadata struct {
	scrape.MetricMetadataStore
	fsm *fsm.FSM
}

func (m writtenMetadata) ListMetadata() (all []scrape.MetricMetadata) {
	for family, entries := range m.fsm.MetricMetadata() {
		for _, e := range entries {
			all = append(all, scrape.MetricMetadata{MetricFamily: family, Type: e.Type, Help: e.Help, Unit: e.Unit})
		}
	}
	return all
}
