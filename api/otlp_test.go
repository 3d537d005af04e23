// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	otelmetric "go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/api/internal/solo"
	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/monitor"
)

// newOTLPInstance is an instance with a receiver, whose otlp section of the configuration is section.
func newOTLPInstance(t *testing.T, section string, change func(*api.Config)) *instance {
	t.Helper()
	conf, err := config.Load("otlp: {"+section+"}", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return newInstance(t, func(c *api.Config) {
		c.EnableOTLP = true
		c.PrometheusConfig = func() config.Config { return *conf }
		c.Appendable = monitor.NewAppendable(monitor.AppendableOptions{FSM: c.FSM, Proposer: c.Cluster, Registerer: prometheus.NewRegistry()})
		if change != nil {
			change(c)
		}
	})
}

// point makes a request with one sum.
func point(name string, at time.Time, v float64, temporality pmetric.AggregationTemporality) pmetricotlp.ExportRequest {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "svc")
	rm.Resource().Attributes().PutStr("k8s.pod", "p1")
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName(name)
	m.SetUnit("s")
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(temporality)
	p := sum.DataPoints().AppendEmpty()
	p.SetStartTimestamp(pcommon.NewTimestampFromTime(at.Add(-time.Second)))
	p.SetTimestamp(pcommon.NewTimestampFromTime(at))
	p.SetDoubleValue(v)
	return pmetricotlp.NewExportRequestFromMetrics(md)
}

func (i *instance) sendOTLP(t *testing.T, req pmetricotlp.ExportRequest) answer {
	t.Helper()
	body, err := req.MarshalProto()
	require.NoError(t, err)
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	_, err = zw.Write(body)
	require.NoError(t, err)
	require.NoError(t, zw.Close())
	return i.do(http.MethodPost, "/api/v1/otlp/v1/metrics", zipped.String(), "Content-Type", "application/x-protobuf", "Content-Encoding", "gzip")
}

func TestOTLPIsOffByDefault(t *testing.T) {
	a := newInstance(t, nil).sendOTLP(t, point("a", time.Now(), 1, pmetric.AggregationTemporalityCumulative))
	require.Equal(t, 404, a.code)
	require.Contains(t, a.text, "otlp write receiver needs to be enabled with --web.enable-otlp-receiver")
}

func TestOTLP(t *testing.T) {
	for section, want := range map[string]string{
		"":                                       `{__name__="run_time_seconds_total", job="svc"}`,
		"promote_resource_attributes: [k8s.pod]": `{__name__="run_time_seconds_total", job="svc", k8s_pod="p1"}`,
		"translation_strategy: NoUTF8EscapingWithSuffixes":     `{__name__="run.time_seconds_total", job="svc"}`,
		"translation_strategy: NoTranslation":                  `{__name__="run.time", job="svc"}`,
		"translation_strategy: UnderscoreEscapingWithSuffixes": `{__name__="run_time_seconds_total", job="svc"}`,
	} {
		t.Run(section, func(t *testing.T) {
			i := newOTLPInstance(t, section, nil)
			a := i.sendOTLP(t, point("run.time", time.Now(), 7, pmetric.AggregationTemporalityCumulative))
			require.Equal(t, 200, a.code, a.text)
			require.NotEmpty(t, a.header.Get("X-Deucalion-Index"))
			require.Equal(t, "solo", a.header.Get("X-Deucalion-Node"))
			got := i.series(t, `{__name__=~"run.*"}`)
			require.Equal(t, []string{want + " 7"}, got)
		})
	}
}

func TestOTLPTypeAndUnitLabels(t *testing.T) {
	i := newOTLPInstance(t, "", func(c *api.Config) { c.TypeAndUnitLabels = true })
	require.Equal(t, 200, i.sendOTLP(t, point("x", time.Now(), 7, pmetric.AggregationTemporalityCumulative)).code)
	require.Equal(t, []string{`{__name__="x_seconds_total", __type__="counter", __unit__="seconds", job="svc"} 7`}, i.series(t, `{__name__=~"x.*"}`))
}

func TestOTLPDelta(t *testing.T) {
	send := func(i *instance) answer {
		now := time.Now()
		i.sendOTLP(t, point("d", now.Add(-2*time.Second), 3, pmetric.AggregationTemporalityDelta))
		return i.sendOTLP(t, point("d", now.Add(-time.Second), 4, pmetric.AggregationTemporalityDelta))
	}
	i := newOTLPInstance(t, "", nil)
	require.NotEqual(t, 200, send(i).code, "deltas are refused unless a feature says what to do with them")
	i = newOTLPInstance(t, "", func(c *api.Config) { c.OTLP.ConvertDelta = true })
	require.Equal(t, 200, send(i).code)
	require.Equal(t, []string{`{__name__="d_seconds_total", job="svc"} 7`}, i.series(t, `{__name__=~"d.*"}`))
	i = newOTLPInstance(t, "", func(c *api.Config) { c.OTLP.NativeDelta = true })
	require.Equal(t, 200, send(i).code)
	require.Len(t, i.series(t, `{__name__=~"d.*"}`), 1)
	require.True(t, strings.HasSuffix(i.series(t, `{__name__=~"d.*"}`)[0], " 4"))
}

// Prometheus's handler answers 200 when the commit fails.
func TestOTLPWithoutQuorum(t *testing.T) {
	for name, change := range map[string]func(*api.Config){
		"as it comes": nil,
		"converted":   func(c *api.Config) { c.OTLP.ConvertDelta = true },
	} {
		t.Run(name, func(t *testing.T) {
			i := newOTLPInstance(t, "", change)
			temporality := pmetric.AggregationTemporalityCumulative
			if change != nil {
				temporality = pmetric.AggregationTemporalityDelta
			}
			i.Set(solo.State{ProposeErr: cluster.ErrNoLeader})
			at := time.Now()
			a := i.sendOTLP(t, point("a", at, 1, temporality))
			require.Equal(t, 503, a.code, a.text)
			require.Equal(t, "1", a.header.Get("Retry-After"))
			require.Empty(t, a.header.Get("X-Deucalion-Index"))
			require.Contains(t, a.text, "no leader")
			i.Set(solo.State{})
			require.Empty(t, i.series(t, `{__name__=~".+"}`))
			if change == nil {
				require.Equal(t, 200, i.sendOTLP(t, point("a", at, 1, temporality)).code)
				require.Len(t, i.series(t, `{__name__="a_seconds_total"}`), 1)
			}
		})
	}
}

func TestOTLPErrors(t *testing.T) {
	i := newOTLPInstance(t, "", nil)
	at := time.Now()
	require.Equal(t, 200, i.sendOTLP(t, point("a", at, 1, pmetric.AggregationTemporalityCumulative)).code)
	require.Equal(t, 200, i.sendOTLP(t, point("a", at, 1, pmetric.AggregationTemporalityCumulative)).code, "a retry")
	require.Equal(t, 400, i.sendOTLP(t, point("a", at, 2, pmetric.AggregationTemporalityCumulative)).code, "another value")
	require.Equal(t, 400, i.sendOTLP(t, point("a", at.Add(-time.Minute), 1, pmetric.AggregationTemporalityCumulative)).code, "out of order")
	require.Equal(t, 400, i.do(http.MethodPost, "/api/v1/otlp/v1/metrics", "x", "Content-Type", "text/plain").code)
	i.Set(solo.State{ProposeErr: fmt.Errorf("entry: %w", cluster.ErrTooLarge)})
	require.Equal(t, 413, i.sendOTLP(t, point("b", at, 2, pmetric.AggregationTemporalityCumulative)).code)
}

// The exporter of the OpenTelemetry SDK is what applications use. It retries a 503 until it is through.
func TestOTLPFromSDK(t *testing.T) {
	i := newOTLPInstance(t, "", nil)
	refused := make(chan struct{}, 16)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := httptest.NewRecorder()
		i.handler.ServeHTTP(recorder, r)
		for name, values := range recorder.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(recorder.Code)
		_, _ = w.Write(recorder.Body.Bytes())
		if recorder.Code == http.StatusServiceUnavailable {
			refused <- struct{}{}
		}
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	exporter, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(server.URL+"/api/v1/otlp/v1/metrics"),
		otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression),
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{Enabled: true, InitialInterval: 10 * time.Millisecond, MaxInterval: time.Second, MaxElapsedTime: time.Minute}))
	require.NoError(t, err)
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithInterval(time.Hour))),
		sdkmetric.WithResource(resource.NewSchemaless(attribute.String("service.name", "app"))))
	meter := provider.Meter("m")
	counter, err := meter.Int64Counter("jobs", otelmetric.WithDescription("Jobs done."))
	require.NoError(t, err)
	counter.Add(ctx, 5, otelmetric.WithAttributes(attribute.String("kind", "x")))
	latency, err := meter.Float64Histogram("latency", otelmetric.WithUnit("s"), otelmetric.WithExplicitBucketBoundaries(1, 2))
	require.NoError(t, err)
	latency.Record(ctx, 1.5)

	i.Set(solo.State{ProposeErr: cluster.ErrNoLeader})
	flushed := make(chan error, 1)
	go func() { flushed <- provider.ForceFlush(ctx) }()
	select {
	case <-refused:
	case err := <-flushed:
		t.Fatalf("acknowledged without a quorum: %v", err)
	case <-ctx.Done():
		t.Fatal("no answer")
	}
	i.Set(solo.State{})
	require.NoError(t, <-flushed)
	require.NoError(t, provider.Shutdown(ctx))
	require.Equal(t, []string{`{__name__="jobs_total", job="app", kind="x"} 5`}, i.series(t, `jobs_total`))
	require.Len(t, i.series(t, `latency_seconds_bucket{le=~"1|2|[+]Inf"}`), 3)
	require.Contains(t, i.get("/api/v1/metadata?metric=jobs_total").text, "Jobs done.")
}
