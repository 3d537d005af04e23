// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// Config is what a Handler needs.
type Config struct {
	Queryable storage.Queryable
	Parser    parser.Parser
	// Lookback is how old the newest sample of a series may be.
	Lookback time.Duration
	// ExternalLabels are added to every series that does not have them.
	ExternalLabels func() labels.Labels
	Logger         *slog.Logger
	Registerer     prometheus.Registerer
}

// Handler answers GET requests with match[] parameters. It is goroutine-safe.
type Handler struct {
	cfg              Config
	failed, warnings prometheus.Counter
}

// New registers the metrics of the handler.
func New(cfg Config) *Handler {
	with := promauto.With(cfg.Registerer)
	return &Handler{
		cfg: cfg,
		failed: with.NewCounter(prometheus.CounterOpts{
			Name: "prometheus_web_federation_errors_total",
			Help: "Total number of errors that occurred while sending federation responses.",
		}),
		warnings: with.NewCounter(prometheus.CounterOpts{
			Name: "prometheus_web_federation_warnings_total",
			Help: "Total number of warnings that occurred while sending federation responses.",
		}),
	}
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, fmt.Sprintf("error parsing form values: %v", err), http.StatusBadRequest)
		return
	}
	selectors, err := h.cfg.Parser.ParseMetricSelectors(r.Form["match[]"])
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	samples, warnings, err := h.newest(r.Context(), selectors, time.Now())
	if len(warnings) > 0 {
		h.cfg.Logger.Debug("Federation select returned warnings", "warnings", warnings)
		h.warnings.Add(float64(len(warnings)))
	}
	if err != nil {
		h.failed.Inc()
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	format := expfmt.NegotiateAccept(r.Header, expfmt.NewFormat(expfmt.TypeProtoDelim), expfmt.NewFormat(expfmt.TypeProtoText),
		expfmt.NewFormat(expfmt.TypeProtoCompact), expfmt.NewFormat(expfmt.TypeTextPlain))
	w.Header().Set("Content-Type", string(format))
	out := newExposition(expfmt.NewEncoder(w, format), format, h.cfg.ExternalLabels())
	for _, s := range samples {
		if err = out.add(s); errors.Is(err, errNameless) {
			h.cfg.Logger.Warn("Ignoring nameless metric during federation", "metric", s.labels)
			err = nil
		} else if err != nil {
			break
		}
	}
	if err = errors.Join(err, out.flush()); err != nil {
		h.failed.Inc()
		h.cfg.Logger.Error("Federation failed", "err", err)
	}
}

// sample is the newest one of a series; h is nil for a float.
type sample struct {
	labels labels.Labels
	t      int64
	f      float64
	h      *histogram.FloatHistogram
}

// newest finds the newest sample of each series that a selector selects, sorted by metric name. A series that is stale
// is left out: no exposition format can say that a series has ended.
func (h *Handler) newest(ctx context.Context, selectors [][]*labels.Matcher, now time.Time) ([]sample, annotations.Annotations, error) {
	mint, maxt := now.Add(-h.cfg.Lookback).UnixMilli(), now.UnixMilli()
	q, err := h.cfg.Queryable.Querier(mint, maxt)
	if err != nil {
		return nil, nil, err
	}
	defer q.Close()
	var sets []storage.SeriesSet
	for _, matchers := range selectors {
		sets = append(sets, q.Select(ctx, true, &storage.SelectHints{Start: mint, End: maxt}, matchers...))
	}
	set := storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	var (
		out  []sample
		it   chunkenc.Iterator
		last = storage.NewMemoizedEmptyIterator(h.cfg.Lookback.Milliseconds())
	)
	for set.Next() {
		it = set.At().Iterator(it)
		last.Reset(it)
		s := sample{labels: set.At().Labels()}
		found := latest(last, maxt, &s)
		if err := last.Err(); err != nil {
			return nil, set.Warnings(), err
		}
		if found && s.t >= mint && !s.stale() {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b sample) int {
		return strings.Compare(a.labels.Get(model.MetricNameLabel), b.labels.Get(model.MetricNameLabel))
	})
	return out, set.Warnings(), set.Err()
}

// latest fills in the newest sample up to maxt, if there is one.
func latest(it *storage.MemoizedSeriesIterator, maxt int64, s *sample) bool {
	switch it.Seek(maxt) {
	case chunkenc.ValFloat:
		s.t, s.f = it.At()
	case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
		s.t, s.h = it.AtFloatHistogram()
	default:
		s.t = maxt + 1
	}
	if s.t <= maxt {
		return true
	}
	var found bool
	_, s.t, s.f, s.h, found = it.PeekPrev()
	return found
}

func (s sample) stale() bool {
	if s.h != nil {
		return value.IsStaleNaN(s.h.Sum)
	}
	return value.IsStaleNaN(s.f)
}
