// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"fmt"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Metrics is what a server tells of itself, by family name.
type Metrics map[string]*dto.MetricFamily

// Metrics fetches /metrics.
func (c *Client) Metrics(ctx context.Context) (Metrics, error) {
	resp, err := c.Get(ctx, "/metrics", nil)
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(resp.Body))
	if err != nil {
		return nil, fmt.Errorf("/metrics: %w", err)
	}
	return families, nil
}

// Sum adds up a family of counters or gauges; a histogram counts with its sum. A family that is not there
// gives 0.
func (m Metrics) Sum(name string) float64 {
	sum := 0.0
	for _, x := range m[name].GetMetric() {
		sum += x.GetCounter().GetValue() + x.GetGauge().GetValue() + x.GetUntyped().GetValue() +
			x.GetHistogram().GetSampleSum()
	}
	return sum
}

// Bound tells how many observations a family of histograms has, and a bound that none of them exceeds: the
// upper edge of the highest bucket in use.
func (m Metrics) Bound(name string) (count uint64, bound float64) {
	for _, x := range m[name].GetMetric() {
		h := x.GetHistogram()
		count += h.GetSampleCount()
		below := uint64(0)
		for _, b := range h.GetBucket() {
			if b.GetCumulativeCount() > below {
				bound = max(bound, b.GetUpperBound())
			}
			below = b.GetCumulativeCount()
		}
	}
	return count, bound
}
