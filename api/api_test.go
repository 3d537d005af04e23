// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/regexp"
	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/api/internal/solo"
	"github.com/deucaliondb/deucalion/fsm"
)

// instance is a whole API over a real state machine.
type instance struct {
	*solo.Node
	api     *api.API
	handler http.Handler
}

func newInstance(t *testing.T, change func(*api.Config)) *instance {
	t.Helper()
	n := solo.New(t, fsm.Settings{MaxExemplars: 100, ClusterID: "c1"})
	registry := prometheus.NewRegistry()
	parse := parser.NewParser(parser.Options{})
	prometheusConfig, err := config.Load("global: {external_labels: {dc: x}}", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	cfg := api.Config{
		FSM: n.FSM, Cluster: n, Parser: parse,
		Engine: promql.NewEngine(promql.EngineOpts{
			MaxSamples: 1000, Timeout: 5 * time.Second, LookbackDelta: 5 * time.Minute, Parser: parse,
			EnableAtModifier: true, EnableNegativeOffset: true, NoStepSubqueryIntervalFn: func(int64) int64 { return 60000 },
		}),
		PrometheusConfig: func() config.Config { return *prometheusConfig },
		Flags:            map[string]string{"web.listen-address": "x"},
		Features:         features.NewRegistry(),
		BuildInfo:        &v1.PrometheusVersion{Version: "3.0.0"},
		ListenAddress:    "127.0.0.1:9090",
		ExternalURL:      &url.URL{Scheme: "http", Host: "h:9090"},
		CORSOrigin:       regexp.MustCompile("^(?:.*)$"),
		EnableAdmin:      true,
		LookbackDelta:    5 * time.Minute,
		PageTitle:        "Title",

		Notifications: notifications.NewNotifications(1, registry),
		Consistency:   api.Bounded,
		MaxStaleness:  10 * time.Second,
		QueryTimeout:  100 * time.Millisecond,
		Retention:     func() string { return "15d" },
		RemoteRead:    api.RemoteReadLimits{Samples: 1000, Concurrency: 2, BytesInFrame: 1 << 20},
		Logger:        slog.New(slog.DiscardHandler),
		Registerer:    registry,
		Gatherer:      registry,
	}
	if change != nil {
		change(&cfg)
	}
	a, err := api.New(cfg)
	require.NoError(t, err)
	return &instance{n, a, a.Handler()}
}

type answer struct {
	code   int
	header http.Header
	text   string
}

// json is the data member of the envelope.
func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.text), &v), a.text)
	return v
}

func (i *instance) do(method, target, body string, header ...string) answer {
	req := httptest.NewRequest(method, target, strings.NewReader(body))
	for j := 0; j < len(header); j += 2 {
		req.Header.Set(header[j], header[j+1])
	}
	w := httptest.NewRecorder()
	i.handler.ServeHTTP(w, req)
	text, _ := io.ReadAll(w.Body)
	return answer{w.Code, w.Header(), string(text)}
}

func (i *instance) get(target string, header ...string) answer {
	return i.do(http.MethodGet, target, "", header...)
}

const formType = "application/x-www-form-urlencoded"

func (i *instance) form(method, target, body string, header ...string) answer {
	return i.do(method, target, body, append(header, "Content-Type", formType)...)
}

// write stores samples of a series, a second apart and ending now, and returns the time of the last in seconds.
func (i *instance) write(t *testing.T, name string, values ...float64) (last int64) {
	t.Helper()
	last = time.Now().Unix()
	ts := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: name}, {Name: "job", Value: "j"}}}
	for j, v := range values {
		ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: (last - int64(len(values)-1-j)) * 1000, Value: v})
	}
	body, err := (&prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{ts},
		Metadata:   []prompb.MetricMetadata{{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: name, Help: "help of " + name}},
	}).Marshal()
	require.NoError(t, err)
	req := httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(snappy.Encode(nil, body)))
	w := httptest.NewRecorder()
	i.handler.ServeHTTP(w, req)
	require.Equal(t, http.StatusNoContent, w.Code, w.Body.String())
	require.NotEmpty(t, w.Header().Get("X-Deucalion-Index"))
	return last
}

// series are the series that a selector selects now, each with its value, sorted.
func (i *instance) series(t *testing.T, selector string) []string {
	t.Helper()
	a := i.get("/api/v1/query?query=" + url.QueryEscape(selector))
	require.Equal(t, http.StatusOK, a.code, a.text)
	var v struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(a.text), &v))
	out := []string{}
	for _, s := range v.Data.Result {
		out = append(out, fmt.Sprintf("%s %s", labels.FromMap(s.Metric), s.Value[1]))
	}
	slices.Sort(out)
	return out
}
