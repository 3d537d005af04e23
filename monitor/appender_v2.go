// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"math"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
)

// appenderV2 is storage.AppenderV2, which scraping and OTLP use.
type appenderV2 struct{ *base }

var _ storage.AppenderV2 = (*appenderV2)(nil)

// Append implements storage.AppenderV2.
func (a *appenderV2) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AppendV2Options) (storage.SeriesRef, error) {
	if a.to.opts.ZeroSamples {
		a.zero(ls, st, t, h, fh)
	}
	ref, err := a.add(ref, ls, t, v, h, fh, o.RejectOutOfOrder)
	if err != nil || h == nil && fh == nil && math.Float64bits(v) == value.StaleNaN {
		return ref, err
	}
	a.exemplars(ls, o.Exemplars...)
	if o.Metadata != (metadata.Metadata{}) && isFamily(o.MetricFamilyName) {
		a.batch.Metadata(o.MetricFamilyName, o.Metadata)
	}
	return ref, nil
}

// isFamily tells names that targets expose from those that the scraper gives to its own series (up, scrape_...), which
// end in a byte that no name has. Prometheus shows no metadata of the latter.
func isFamily(name string) bool { return name != "" && !strings.HasSuffix(name, "\xff") }
