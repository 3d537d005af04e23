// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
)

// appenderV1 is storage.Appender, which the rule manager uses.
type appenderV1 struct {
	*base
	rejectOutOfOrder bool
}

var _ storage.Appender = (*appenderV1)(nil)

// SetOptions implements storage.Appender.
func (a *appenderV1) SetOptions(o *storage.AppendOptions) {
	a.rejectOutOfOrder = o != nil && o.DiscardOutOfOrder
}

// Append implements storage.Appender.
func (a *appenderV1) Append(ref storage.SeriesRef, ls labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	return a.add(ref, ls, t, v, nil, nil, a.rejectOutOfOrder)
}

// AppendHistogram implements storage.HistogramAppender.
func (a *appenderV1) AppendHistogram(ref storage.SeriesRef, ls labels.Labels, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return a.add(ref, ls, t, 0, h, fh, a.rejectOutOfOrder)
}

// AppendExemplar implements storage.ExemplarAppender.
func (a *appenderV1) AppendExemplar(ref storage.SeriesRef, ls labels.Labels, e exemplar.Exemplar) (storage.SeriesRef, error) {
	a.exemplars(ls, e)
	return ref, nil
}

// UpdateMetadata implements storage.MetadataUpdater. Nobody calls it but with a family's name as the metric name.
func (a *appenderV1) UpdateMetadata(ref storage.SeriesRef, ls labels.Labels, m metadata.Metadata) (storage.SeriesRef, error) {
	if a.batch != nil {
		a.batch.Metadata(ls.Get(model.MetricNameLabel), m)
	}
	return ref, nil
}

// AppendSTZeroSample implements storage.StartTimestampAppender.
func (a *appenderV1) AppendSTZeroSample(ref storage.SeriesRef, ls labels.Labels, t, st int64) (storage.SeriesRef, error) {
	a.zero(ls, st, t, nil, nil)
	return ref, nil
}

// AppendHistogramSTZeroSample implements storage.HistogramAppender.
func (a *appenderV1) AppendHistogramSTZeroSample(ref storage.SeriesRef, ls labels.Labels, t, st int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	a.zero(ls, st, t, h, fh)
	return ref, nil
}
