// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package surface_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// What the exporter of the OpenTelemetry SDK was told is stored is on all nodes; without a quorum it is told to try again.
func TestOTLPExporter(t *testing.T) {
	onEach(t, func(t *testing.T, n *local.Server, others []*local.Server) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		exporter, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL("http://"+n.Addr+"/api/v1/otlp/v1/metrics"),
			otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression), otlpmetrichttp.WithTimeout(20*time.Second),
			otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{}))
		require.NoError(t, err)
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithInterval(time.Hour))))
		counter, err := provider.Meter("m").Int64Counter("jobs")
		require.NoError(t, err)
		counter.Add(ctx, 5)
		require.NoError(t, provider.ForceFlush(ctx))
		for _, s := range append(others, n) {
			require.Equal(t, "5", jobs(t, s, client.Linearizable), s.Name)
		}
		if len(others) == 0 {
			require.NoError(t, provider.Shutdown(ctx))
			return
		}
		for _, s := range others {
			require.NoError(t, s.Kill())
		}
		counter.Add(ctx, 1)
		require.ErrorContains(t, provider.ForceFlush(ctx), "retry-able", "what the exporter makes of 503")
		require.Equal(t, "5", jobs(t, n, client.Local), "what is not acknowledged is not there")
		for _, s := range others {
			require.NoError(t, s.Start())
		}
		for _, s := range append(others, n) {
			harness.WaitReady(t, s)
		}
		counter.Add(ctx, 1)
		require.NoError(t, provider.Shutdown(ctx)) // flushes
		require.Equal(t, "7", jobs(t, others[0], client.Linearizable))
	}, "--web.enable-otlp-receiver")
}

func jobs(t *testing.T, n *local.Server, level string) string {
	t.Helper()
	c := n.Client().At(level)
	defer c.Close()
	got, err := c.Query(t.Context(), "jobs_total", time.Now().UnixMilli())
	require.NoError(t, err)
	require.Len(t, got.Series, 1)
	return got.Series[0].Points[0].Value
}

// A federating server gets the newest samples of what it asks for, on any node.
func TestFederation(t *testing.T) {
	onEach(t, func(t *testing.T, n *local.Server, others []*local.Server) {
		at := write(t, n, "m", 3)
		for _, s := range append(others, n) {
			c := s.Client().At(client.Linearizable)
			resp, err := c.Do(t.Context(), http.MethodGet, "/federate?"+url.Values{"match[]": {`m{i=~"1|2"}`}}.Encode(), nil, nil)
			c.Close()
			require.NoError(t, err)
			require.NoError(t, resp.Err())
			parser := expfmt.NewTextParser(model.UTF8Validation)
			families, err := parser.TextToMetricFamilies(strings.NewReader(string(resp.Body)))
			require.NoError(t, err, "%s", resp.Body)
			require.Len(t, families["m"].GetMetric(), 2, "%s", resp.Body)
			require.Equal(t, at.UnixMilli(), families["m"].GetMetric()[0].GetTimestampMs())
		}
	})
}
