// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite_test

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
)

// recorder is a sink that writes down what it is given, as text, and knows again the keys that it has seen.
type recorder struct {
	known    map[string]labels.Labels
	current  labels.Labels
	events   []string
	families map[string]bool
}

func newRecorder() *recorder {
	return &recorder{known: map[string]labels.Labels{}, families: map[string]bool{}}
}

func (r *recorder) add(format string, args ...any) {
	r.events = append(r.events, r.current.String()+" "+fmt.Sprintf(format, args...))
}

func (r *recorder) SeriesByKey(key []byte) (ok bool) {
	ls, ok := r.known[string(key)]
	if ok {
		r.current = ls
	}
	return ok
}

func (r *recorder) Series(key []byte, ls labels.Labels) {
	r.known[string(key)] = ls
	r.current = ls
}

func (r *recorder) Labels() labels.Labels    { return r.current }
func (r *recorder) Float(t int64, v float64) { r.add("float %d %x", t, math.Float64bits(v)) }
func (r *recorder) Histogram(t int64, h *histogram.Histogram) {
	r.add("histogram %d %s", t, histText(h))
}

func (r *recorder) FloatHistogram(t int64, h *histogram.FloatHistogram) {
	r.add("float histogram %d %s", t, floatHistText(h))
}
func (r *recorder) Exemplar(e exemplar.Exemplar) { r.add("exemplar %s", exemplarText(e)) }
func (r *recorder) Metadata(family string, m metadata.Metadata) {
	r.families[fmt.Sprintf("%q %+v", family, m)] = true
}

func histText(h *histogram.Histogram) string {
	return fmt.Sprintf("%d %d %x %d %d %x %v %v %v %v %v", h.CounterResetHint, h.Schema, math.Float64bits(h.ZeroThreshold),
		h.ZeroCount, h.Count, math.Float64bits(h.Sum), h.PositiveSpans, h.NegativeSpans, h.PositiveBuckets, h.NegativeBuckets, h.CustomValues)
}

func floatHistText(h *histogram.FloatHistogram) string {
	return fmt.Sprintf("%d %d %x %v %v %x %v %v %v %v %v", h.CounterResetHint, h.Schema, math.Float64bits(h.ZeroThreshold),
		h.ZeroCount, h.Count, math.Float64bits(h.Sum), h.PositiveSpans, h.NegativeSpans, h.PositiveBuckets, h.NegativeBuckets, h.CustomValues)
}

func exemplarText(e exemplar.Exemplar) string {
	return fmt.Sprintf("%s %d %x %v", e.Labels, e.Ts, math.Float64bits(e.Value), e.HasTs)
}
