// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite_test

import (
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api/remotewrite"
)

const (
	testMaxTime  = 1 << 41
	testMaxLabel = 1 << 20
)

// decode runs the decoder twice, with a cold and a warm cache of keys, which must give the same.
func decode(t *testing.T, v2 bool, body []byte) (events, families []string, err error) {
	t.Helper()
	var d remotewrite.Decoder
	r := newRecorder()
	_, err = d.Decode(r, v2, body, testMaxTime, testMaxLabel)
	cold := r.events
	r.events = nil
	_, again := d.Decode(r, v2, body, testMaxTime, testMaxLabel)
	require.Equal(t, err == nil, again == nil, "a cached key changes the verdict: %v and %v", err, again)
	require.Equal(t, cold, r.events, "a cached key changes the samples")
	for f := range r.families {
		families = append(families, f)
	}
	slices.Sort(families)
	slices.Sort(cold)
	return cold, families, err
}

// oracle collects what Prometheus's own types make of a request.
type oracle struct {
	recorder *recorder
	builder  labels.ScratchBuilder
}

func (o *oracle) enter(ls labels.Labels) bool {
	if _, dup := ls.HasDuplicateLabelNames(); dup || !ls.Has(model.MetricNameLabel) || !ls.IsValid(model.UTF8Validation) {
		return false
	}
	o.recorder.current = ls.WithoutEmpty()
	return true
}

func (o *oracle) float(t int64, v float64) {
	if t <= testMaxTime {
		o.recorder.Float(t, v)
	}
}

func (o *oracle) histogram(t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) {
	const top = histogram.ExponentialSchemaMax
	switch {
	case t > testMaxTime:
	case h != nil:
		if histogram.IsExponentialSchemaReserved(h.Schema) && h.Schema > top && h.ReduceResolution(top) != nil {
			return
		}
		if h.Validate() == nil {
			o.recorder.Histogram(t, h)
		}
	default:
		if histogram.IsExponentialSchemaReserved(fh.Schema) && fh.Schema > top && fh.ReduceResolution(top) != nil {
			return
		}
		if fh.Validate() == nil {
			o.recorder.FloatHistogram(t, fh)
		}
	}
}

func (o *oracle) exemplar(e exemplar.Exemplar) {
	runes := 0
	e.Labels.Range(func(l labels.Label) {
		runes += utf8.RuneCountInString(l.Name) + utf8.RuneCountInString(l.Value)
	})
	if runes <= exemplar.ExemplarMaxLabelSetLength && e.Ts <= testMaxTime {
		o.recorder.Exemplar(e)
	}
}

func (o *oracle) events() []string {
	slices.Sort(o.recorder.events)
	return o.recorder.events
}

func oracleV1(req *prompb.WriteRequest) []string {
	o := &oracle{recorder: newRecorder()}
	for _, ts := range req.Timeseries {
		if !o.enter(ts.ToLabels(&o.builder, nil)) {
			continue
		}
		for _, s := range ts.Samples {
			o.float(s.Timestamp, s.Value)
		}
		for _, h := range ts.Histograms {
			if h.IsFloatHistogram() {
				o.histogram(h.Timestamp, nil, h.ToFloatHistogram())
			} else {
				o.histogram(h.Timestamp, h.ToIntHistogram(), nil)
			}
		}
		for _, e := range ts.Exemplars {
			o.exemplar(e.ToExemplar(&o.builder, nil))
		}
	}
	return o.events()
}

func oracleV2(req *writev2.Request) []string {
	o := &oracle{recorder: newRecorder()}
	for _, ts := range req.Timeseries {
		ls, err := ts.ToLabels(&o.builder, req.Symbols)
		if err != nil || len(ts.Samples)+len(ts.Histograms) == 0 {
			continue
		}
		if ts.Metadata.HelpRef+ts.Metadata.UnitRef > 0 {
			if _, err := ts.ToMetadata(req.Symbols); err != nil {
				continue
			}
		}
		if !o.enter(ls) {
			continue
		}
		for _, s := range ts.Samples {
			o.float(s.Timestamp, s.Value)
		}
		for _, h := range ts.Histograms {
			if h.IsFloatHistogram() {
				o.histogram(h.Timestamp, nil, h.ToFloatHistogram())
			} else {
				o.histogram(h.Timestamp, h.ToIntHistogram(), nil)
			}
		}
		for _, e := range ts.Exemplars {
			if ex, err := e.ToExemplar(&o.builder, req.Symbols); err == nil {
				o.exemplar(ex)
			}
		}
	}
	return o.events()
}
