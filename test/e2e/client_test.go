// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// The client's own faults must not be blamed on the nodes: here it meets the original.
func TestClientAgainstStock(t *testing.T) {
	s := harness.Stock(t, local.StockOptions{Flags: []string{
		"--web.enable-remote-write-receiver", "--enable-feature=native-histograms",
	}})
	c := s.Client()
	defer c.Close()
	now := time.Now().UnixMilli()
	stale := math.Float64frombits(0x7ff0000000000002)
	require.NoError(t, c.Write(t.Context(), []prompb.TimeSeries{
		{
			Labels:  client.Labels("__name__", "a", "x", `quo"te`),
			Samples: []prompb.Sample{{Value: 1, Timestamp: now - 1}, {Value: 3, Timestamp: now}, {Value: stale, Timestamp: now + 1}},
		},
		{Labels: client.Labels("__name__", "h"), Histograms: []prompb.Histogram{{
			Count: &prompb.Histogram_CountInt{CountInt: 4}, Sum: 7, Schema: 1, ZeroThreshold: 0.001,
			ZeroCount:     &prompb.Histogram_ZeroCountInt{ZeroCountInt: 1},
			PositiveSpans: []prompb.BucketSpan{{Offset: 2, Length: 2}}, PositiveDeltas: []int64{2, -1}, Timestamp: now,
		}}},
	}))
	// This old Prometheus leaves histograms out of remote read, so those are asked for by query.
	data, err := c.Read(t.Context(), now-1, now+1, &prompb.LabelMatcher{Name: "__name__", Value: "a"})
	require.NoError(t, err)
	require.Equal(t, client.Data{
		`{__name__="a",x="quo\"te"}`: {
			{T: now - 1, Bits: math.Float64bits(1)},
			{T: now, Bits: math.Float64bits(3)},
			{T: now + 1, Bits: math.Float64bits(stale)},
		},
	}, data)
	for expr, want := range map[string]string{"sum(a)": "3", "sum(histogram_count(h))": "4"} {
		got, err := c.Query(t.Context(), expr, now)
		require.NoError(t, err)
		require.Equal(t, "vector", got.Type)
		require.Len(t, got.Series, 1)
		require.Equal(t, want, got.Series[0].Points[0].Value)
	}
	_, err = c.Query(t.Context(), "sum(", now)
	require.ErrorIs(t, err, client.ErrStatus)
}
