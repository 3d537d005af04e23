// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// Histograms are decoded by Prometheus's own code: they are rare beside floats, and their form is intricate.

func (d *decoder) histogramV1(b []byte, ok bool) error {
	var h prompb.Histogram
	if err := h.Unmarshal(b); err != nil {
		return fmt.Errorf("%w: histogram: %w", ErrMalformed, err)
	}
	switch {
	case !ok:
	case h.Timestamp > d.sure:
		d.tooNew(h.Timestamp)
	case h.IsFloatHistogram():
		d.floatHistogram(h.Timestamp, h.ToFloatHistogram())
	default:
		d.intHistogram(h.Timestamp, h.ToIntHistogram())
	}
	return nil
}

func (d *decoder) histogramV2(b []byte, ok bool) error {
	var h writev2.Histogram
	if err := h.Unmarshal(b); err != nil {
		return fmt.Errorf("%w: histogram: %w", ErrMalformed, err)
	}
	switch {
	case !ok:
	case h.Timestamp > d.sure:
		d.tooNew(h.Timestamp)
	case h.IsFloatHistogram():
		d.floatHistogram(h.Timestamp, h.ToFloatHistogram())
	default:
		d.intHistogram(h.Timestamp, h.ToIntHistogram())
	}
	return nil
}

// intHistogram validates h and hands it over. A resolution that is defined but too fine for the storage is reduced,
// as Prometheus does.
func (d *decoder) intHistogram(t int64, h *histogram.Histogram) {
	var err error
	if histogram.IsExponentialSchemaReserved(h.Schema) && h.Schema > histogram.ExponentialSchemaMax {
		err = h.ReduceResolution(histogram.ExponentialSchemaMax)
	}
	if err = errors.Join(err, h.Validate()); err != nil {
		d.badHistogram(t, err)
		return
	}
	d.sink.Histogram(t, h)
}

// floatHistogram is intHistogram for float histograms.
func (d *decoder) floatHistogram(t int64, h *histogram.FloatHistogram) {
	var err error
	if histogram.IsExponentialSchemaReserved(h.Schema) && h.Schema > histogram.ExponentialSchemaMax {
		err = h.ReduceResolution(histogram.ExponentialSchemaMax)
	}
	if err = errors.Join(err, h.Validate()); err != nil {
		d.badHistogram(t, err)
		return
	}
	d.sink.FloatHistogram(t, h)
}

func (d *decoder) badHistogram(t int64, err error) {
	d.refused.add(reasonHistogram, 1, "%v for series %v at %d", err, d.sink.Labels(), t)
}
