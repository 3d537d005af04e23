// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"errors"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"
)

var errNameless = errors.New("series has no name")

// exposition writes samples as metric families. A name that has floats and histograms gives a family of each kind, as
// often as the kind changes, which Prometheus can read.
type exposition struct {
	enc      expfmt.Encoder
	native   bool           // whether the format can say native histograms
	external []labels.Label // with instance, so that the scraping server's own does not stand in for a missing one
	family   *dto.MetricFamily
}

func newExposition(enc expfmt.Encoder, format expfmt.Format, external labels.Labels) *exposition {
	e := &exposition{enc: enc}
	switch format.FormatType() {
	case expfmt.TypeProtoDelim, expfmt.TypeProtoText, expfmt.TypeProtoCompact:
		e.native = true
	}
	external.Range(func(l labels.Label) { e.external = append(e.external, l) })
	if !external.Has(model.InstanceLabel) {
		e.external = append(e.external, labels.Label{Name: model.InstanceLabel})
		slices.SortFunc(e.external, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
	}
	return e
}

// add takes a sample; samples come sorted by name.
func (e *exposition) add(s sample) error {
	if s.h != nil && !s.h.UsesCustomBuckets() && !e.native {
		return nil
	}
	name := s.labels.Get(model.MetricNameLabel)
	if name == "" {
		return errNameless
	}
	kind := dto.MetricType_UNTYPED
	switch {
	case s.h != nil && s.h.CounterResetHint == histogram.GaugeType:
		kind = dto.MetricType_GAUGE_HISTOGRAM
	case s.h != nil:
		kind = dto.MetricType_HISTOGRAM
	}
	if e.family == nil || e.family.GetName() != name || e.family.GetType() != kind {
		if err := e.flush(); err != nil {
			return err
		}
		e.family = &dto.MetricFamily{Name: proto.String(name), Type: kind.Enum()}
	}
	m := &dto.Metric{Label: e.labels(s.labels), TimestampMs: proto.Int64(s.t)}
	switch {
	case s.h == nil:
		m.Untyped = &dto.Untyped{Value: proto.Float64(s.f)}
	case s.h.UsesCustomBuckets():
		m.Histogram = classic(s.h)
	default:
		m.Histogram = native(s.h)
	}
	e.family.Metric = append(e.family.Metric, m)
	return nil
}

// flush writes the family under way.
func (e *exposition) flush() error {
	if e.family == nil {
		return nil
	}
	family := e.family
	e.family = nil
	return e.enc.Encode(family)
}

func (e *exposition) labels(ls labels.Labels) []*dto.LabelPair {
	out := make([]*dto.LabelPair, 0, ls.Len()+len(e.external))
	add := func(l labels.Label) {
		out = append(out, &dto.LabelPair{Name: proto.String(l.Name), Value: proto.String(l.Value)})
	}
	ls.Range(func(l labels.Label) {
		if l.Name != model.MetricNameLabel {
			add(l)
		}
	})
	for _, l := range e.external {
		if !ls.Has(l.Name) {
			add(l)
		}
	}
	return out
}

// native writes an exponential histogram.
func native(h *histogram.FloatHistogram) *dto.Histogram {
	out := &dto.Histogram{
		SampleCountFloat: proto.Float64(h.Count),
		SampleSum:        proto.Float64(h.Sum),
		Schema:           proto.Int32(h.Schema),
		ZeroThreshold:    proto.Float64(h.ZeroThreshold),
		ZeroCountFloat:   proto.Float64(h.ZeroCount),
		PositiveSpan:     spans(h.PositiveSpans),
		PositiveCount:    h.PositiveBuckets,
		NegativeSpan:     spans(h.NegativeSpans),
		NegativeCount:    h.NegativeBuckets,
	}
	if len(out.PositiveSpan) == 0 && len(out.NegativeSpan) == 0 && h.ZeroThreshold == 0 {
		// Nothing else tells an empty native histogram from a classic one.
		out.PositiveSpan = []*dto.BucketSpan{{Offset: proto.Int32(0), Length: proto.Uint32(0)}}
	}
	return out
}

func spans(in []histogram.Span) []*dto.BucketSpan {
	var out []*dto.BucketSpan
	for _, s := range in {
		out = append(out, &dto.BucketSpan{Offset: proto.Int32(s.Offset), Length: proto.Uint32(s.Length)})
	}
	return out
}

// classic writes a histogram with custom buckets as the classic one that it was; the encoder adds the bucket +Inf.
func classic(h *histogram.FloatHistogram) *dto.Histogram {
	counts := make([]float64, len(h.CustomValues)+1) // by bucket, the last is +Inf
	for it := h.PositiveBucketIterator(); it.Next(); {
		counts[it.At().Index] += it.At().Count
	}
	out := &dto.Histogram{SampleCountFloat: proto.Float64(h.Count), SampleSum: proto.Float64(h.Sum)}
	var sum float64
	for i, bound := range h.CustomValues {
		sum += counts[i]
		out.Bucket = append(out.Bucket, &dto.Bucket{UpperBound: proto.Float64(bound), CumulativeCountFloat: proto.Float64(sum)})
	}
	return out
}
