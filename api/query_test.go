// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/api/internal/solo"
)

func TestQueryErrorsAreThoseOfPrometheus(t *testing.T) {
	i := newInstance(t, nil)
	last := i.write(t, "a", 1, 2, 3)
	i.write(t, "b", 1)
	for name, tc := range map[string]struct {
		target string
		code   int
		typ    string
		text   string
	}{
		"does not parse":     {"query?query=rate(", 400, "bad_data", `invalid parameter "query": 1:6: parse error: unclosed left parenthesis`},
		"no query":           {"query", 400, "bad_data", "no expression found in input"},
		"bad time":           {"query?query=a&time=x", 400, "bad_data", `cannot parse "x" to a valid timestamp`},
		"step 0":             {"query_range?query=a&start=1&end=2&step=0", 400, "bad_data", "zero or negative query resolution step widths are not accepted"},
		"too many points":    {"query_range?query=a&start=0&end=11002&step=1", 400, "bad_data", "exceeded maximum resolution of 11,000 points per timeseries"},
		"end before start":   {"query_range?query=a&start=2&end=1&step=1", 400, "bad_data", "end timestamp must not be before start time"},
		"execution":          {fmt.Sprintf(`query?query=label_replace({job="j"},"__name__","x","","")&time=%d`, last), 422, "execution", "vector cannot contain metrics with the same labelset"},
		"no matcher":         {"query?query={}", 400, "bad_data", "vector selector must contain at least one non-empty matcher"},
		"series without any": {"series", 400, "bad_data", "no match[] parameter provided"},
		"bad label name":     {"label/%ff/values", 400, "bad_data", "invalid label name"},
		"bad metadata limit": {"metadata?limit=x", 400, "bad_data", "limit must be a number"},
		"bad metadata per":   {"metadata?limit_per_metric=x", 400, "bad_data", "limit_per_metric must be a number"},
	} {
		t.Run(name, func(t *testing.T) {
			a := i.get("/api/v1/" + tc.target)
			require.Equal(t, tc.code, a.code, a.text)
			require.Equal(t, tc.typ, a.json(t)["errorType"])
			require.Contains(t, a.json(t)["error"], tc.text)
		})
	}
}

func TestQueries(t *testing.T) {
	i := newInstance(t, nil)
	last := i.write(t, "a", 1, 2, 3)
	require.JSONEq(t, fmt.Sprintf(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"a","job":"j"},"value":[%d,"3"]}]}}`, last),
		i.get(fmt.Sprintf("/api/v1/query?query=a&time=%d", last)).text)
	require.JSONEq(t, `{"status":"success","data":["__name__","job"]}`, i.get("/api/v1/labels").text)
	require.JSONEq(t, `{"status":"success","data":["a"]}`, i.get("/api/v1/label/__name__/values").text)
	require.JSONEq(t, `{"status":"success","data":[{"__name__":"a","job":"j"}]}`, i.get("/api/v1/series?match[]=a").text)
	require.JSONEq(t, `{"status":"success","data":[]}`, i.get("/api/v1/query_exemplars?query=a&start=1&end=2").text)
	require.JSONEq(t, `{"status":"success","data":"a + b"}`, i.get("/api/v1/format_query?query=a%2Bb").text)
}

func TestMetadata(t *testing.T) {
	i := newInstance(t, nil)
	for _, name := range []string{"a", "b", "c"} {
		i.write(t, name, 1)
	}
	const entry = `[{"type":"gauge","help":"help of %s","unit":""}]`
	all := fmt.Sprintf(`{"a":`+entry+`,"b":`+entry+`,"c":`+entry+`}`, "a", "b", "c")
	one := fmt.Sprintf(`{"a":`+entry+`}`, "a")
	for params, want := range map[string]string{
		"":                    all,
		"?limit=-1":           all,
		"?limit=1":            one,
		"?limit=0":            `{}`,
		"?metric=a":           one,
		"?metric=x":           `{}`,
		"?limit_per_metric=1": all,
	} {
		a := i.get("/api/v1/metadata" + params)
		require.Equal(t, 200, a.code)
		require.JSONEq(t, `{"status":"success","data":`+want+`}`, a.text, params)
	}
}

func (i *instance) remoteRead(t *testing.T, last int64, types ...prompb.ReadRequest_ResponseType) *httptest.ResponseRecorder {
	t.Helper()
	body, err := (&prompb.ReadRequest{AcceptedResponseTypes: types, Queries: []*prompb.Query{{
		StartTimestampMs: (last - 1) * 1000, EndTimestampMs: last * 1000,
		Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: "a|b"}},
	}}}).Marshal()
	require.NoError(t, err)
	req := httptest.NewRequest(http.MethodPost, "/api/v1/read", bytes.NewReader(snappy.Encode(nil, body)))
	w := httptest.NewRecorder()
	i.handler.ServeHTTP(w, req)
	require.Equal(t, 200, w.Code, w.Body.String())
	require.NotEmpty(t, w.Header().Get("X-Deucalion-Index"))
	return w
}

func TestRemoteReadSamples(t *testing.T) {
	i := newInstance(t, nil)
	last := i.write(t, "a", 1, 2, 3)
	w := i.remoteRead(t, last)
	body, err := snappy.Decode(nil, w.Body.Bytes())
	require.NoError(t, err)
	var res prompb.ReadResponse
	require.NoError(t, res.Unmarshal(body))
	require.Len(t, res.Results[0].Timeseries, 1)
	ts := res.Results[0].Timeseries[0]
	require.Equal(t, []prompb.Sample{{Timestamp: (last - 1) * 1000, Value: 2}, {Timestamp: last * 1000, Value: 3}}, ts.Samples)
	require.Contains(t, ts.Labels, prompb.Label{Name: "dc", Value: "x"}, "external labels")
}

// The limit of concurrent calls is off with 0, as the flag says.
func TestRemoteReadWithoutLimit(t *testing.T) {
	i := newInstance(t, func(c *api.Config) { c.RemoteRead.Concurrency = 0 })
	last := i.write(t, "a", 1, 2, 3)
	done := make(chan int, 1)
	go func() { done <- i.remoteRead(t, last).Code }()
	select {
	case code := <-done:
		require.Equal(t, http.StatusOK, code)
	case <-time.After(30 * time.Second):
		t.Fatal("no answer")
	}
}

func TestRemoteReadChunks(t *testing.T) {
	i := newInstance(t, nil)
	last := i.write(t, "a", 1, 2, 3)
	w := i.remoteRead(t, last, prompb.ReadRequest_STREAMED_XOR_CHUNKS)
	require.Equal(t, "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse", w.Header().Get("Content-Type"))
	stream := remote.NewChunkedReader(w.Body, 1<<20, nil)
	samples := 0
	for {
		var res prompb.ChunkedReadResponse
		if err := stream.NextProto(&res); err == io.EOF {
			break
		} else {
			require.NoError(t, err)
		}
		for _, c := range res.ChunkedSeries[0].Chunks {
			chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
			require.NoError(t, err)
			samples += chunk.NumSamples()
		}
	}
	require.GreaterOrEqual(t, samples, 2)
}

func TestClusterNeedsNoLeader(t *testing.T) {
	i := newInstance(t, nil)
	data := i.get("/api/v1/cluster").json(t)["data"].(map[string]any)
	require.Equal(t, "solo", data["leader"])
	require.Equal(t, "c1", data["cluster_id"])
	require.Equal(t, "solo", data["nodes"].([]any)[0].(map[string]any)["id"])
	i.Set(solo.State{NoLeader: true})
	data = i.get("/api/v1/cluster").json(t)["data"].(map[string]any)
	require.Empty(t, data["leader"])
}

func TestRoutes(t *testing.T) {
	i := newInstance(t, nil)
	for target, code := range map[string]int{
		"/": 200, "/version": 200, "/-/healthy": 200, "/-/ready": 200, "/metrics": 200, "/debug/pprof/": 200, "/debug/pprof/heap": 200,
		"/federate": 200, "/nothing": 404, "/api/v1/nothing": 404, "/api/v1/write": 405, "/api/v1/read": 405,
		"/api/v1/openapi.yaml": 200, "/api/v1/features": 200, "/api/v1/status/config": 200, "/api/v1/status/flags": 200,
		"/api/v1/status/tsdb": 200, "/api/v1/status/tsdb/blocks": 200, "/api/v1/status/walreplay": 200, "/api/v1/notifications": 200,
		"/api/v1/targets": 200, "/api/v1/scrape_pools": 200, "/api/v1/alertmanagers": 200, "/api/v1/rules": 200, "/api/v1/alerts": 200,
	} {
		require.Equal(t, code, i.get(target).code, target)
	}
	require.NotContains(t, i.get("/api/v1/status/tsdb").text, `"chunkCount":-`)
	metrics := i.get("/metrics").text
	for _, want := range []string{
		`prometheus_http_requests_total{code="200",handler="/api/v1/status/tsdb"}`,
		`prometheus_http_request_duration_seconds_bucket{handler="/api/v1/targets"`,
		"prometheus_ready 1",
	} {
		require.True(t, strings.Contains(metrics, want), want)
	}
}

func TestRoutePrefix(t *testing.T) {
	i := newInstance(t, func(c *api.Config) { c.ExternalURL = &url.URL{Scheme: "http", Host: "h", Path: "/prom"} })
	for target, code := range map[string]int{
		"/prom/": 200, "/prom/-/healthy": 200, "/prom/metrics": 200, "/prom/api/v1/query?query=1": 200, "/prom/api/v1/cluster": 200,
		"/prom/debug/pprof/heap": 200, "/": 302, "/api/v1/query?query=1": 404,
	} {
		require.Equal(t, code, i.get(target).code, target)
	}
}

func TestPanicIsA500(t *testing.T) {
	i := newInstance(t, nil)
	i.Set(solo.State{Panic: true})
	require.Equal(t, 500, i.get("/api/v1/cluster").code)
	i.Set(solo.State{})
	require.Equal(t, 200, i.get("/api/v1/cluster").code)
}
