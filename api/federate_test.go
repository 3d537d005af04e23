// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/api/internal/solo"
)

// store writes series as they are.
func (i *instance) store(t *testing.T, series ...prompb.TimeSeries) {
	t.Helper()
	body, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	require.NoError(t, err)
	w := httptest.NewRecorder()
	i.handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(snappy.Encode(nil, body))))
	require.Equal(t, http.StatusNoContent, w.Code, w.Body.String())
}

func floats(at time.Time, v float64, pairs ...string) prompb.TimeSeries {
	return prompb.TimeSeries{Labels: promLabels(pairs...), Samples: []prompb.Sample{{Timestamp: at.UnixMilli(), Value: v}}}
}

func promLabels(pairs ...string) []prompb.Label {
	var out []prompb.Label
	labels.FromStrings(pairs...).Range(func(l labels.Label) { out = append(out, prompb.Label{Name: l.Name, Value: l.Value}) })
	return out
}

const acceptProto = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

// scrape reads /federate as a scraper does: by the answer's own content type.
func (i *instance) scrape(t *testing.T, accept string, selectors ...string) []*dto.MetricFamily {
	t.Helper()
	a := i.get("/federate?"+url.Values{"match[]": selectors}.Encode(), "Accept", accept)
	require.Equal(t, 200, a.code, a.text)
	require.NotEmpty(t, a.header.Get("X-Deucalion-Index"))
	dec := expfmt.NewDecoder(strings.NewReader(a.text), expfmt.ResponseFormat(a.header))
	var out []*dto.MetricFamily
	for {
		f := &dto.MetricFamily{}
		if err := dec.Decode(f); errors.Is(err, io.EOF) {
			// The decoder of the text format gives them in any order.
			slices.SortFunc(out, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
			return out
		} else {
			require.NoError(t, err)
		}
		out = append(out, f)
	}
}

// flat writes floats as lines.
func flat(families []*dto.MetricFamily) []string {
	lines := []string{}
	for _, f := range families {
		for _, m := range f.Metric {
			var ls []string
			for _, l := range m.Label {
				ls = append(ls, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			lines = append(lines, fmt.Sprintf("%s %s{%s} %g @%d", f.GetType(), f.GetName(), strings.Join(ls, ","), m.GetUntyped().GetValue(), m.GetTimestampMs()))
		}
	}
	return lines
}

func TestFederate(t *testing.T) {
	i := newInstance(t, nil) // with the external label dc="x"
	now := time.Now()
	ms := now.Add(-2 * time.Second).UnixMilli()
	i.store(t,
		floats(now.Add(-10*time.Second), 1, "__name__", "b", "job", "j"),
		floats(now.Add(-2*time.Second), 2, "__name__", "b", "job", "j"),
		floats(now.Add(-2*time.Second), 3, "__name__", "a", "dc", "mine", "instance", "h:1"),
		floats(now.Add(-2*time.Second), 4, "__name__", "a", "job", "k"),
		floats(now.Add(-6*time.Minute), 5, "__name__", "old"),
		floats(now.Add(-20*time.Second), 6, "__name__", "gone"),
		floats(now.Add(-2*time.Second), math.Float64frombits(value.StaleNaN), "__name__", "gone"),
	)
	want := []string{
		fmt.Sprintf(`UNTYPED a{dc="mine",instance="h:1"} 3 @%d`, ms),
		fmt.Sprintf(`UNTYPED a{job="k",dc="x",instance=""} 4 @%d`, ms),
		fmt.Sprintf(`UNTYPED b{job="j",dc="x",instance=""} 2 @%d`, ms),
	}
	for _, accept := range []string{"", "text/plain;version=0.0.4", acceptProto, "application/openmetrics-text;version=1.0.0,*/*;q=0.1"} {
		require.ElementsMatch(t, want, flat(i.scrape(t, accept, `{__name__=~".+"}`, "b")), accept)
	}
	require.Equal(t, want[2:], flat(i.scrape(t, "", "b")))
	require.Empty(t, i.scrape(t, ""), "as Prometheus: nothing asked for, nothing answered")
	require.Empty(t, i.scrape(t, "", "nonesuch"))
	require.Equal(t, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", i.get("/federate?match[]=a").header.Get("Content-Type"))
	require.Equal(t, 400, i.get("/federate?match[]={").code)
	require.Equal(t, "gzip", i.get("/federate?match[]=a", "Accept-Encoding", "gzip").header.Get("Content-Encoding"))
}

func TestFederateIsConsistent(t *testing.T) {
	i := newInstance(t, nil)
	i.Set(solo.State{Staleness: time.Minute})
	require.Equal(t, 503, i.get("/federate?match[]=a").code)
	require.Equal(t, 200, i.get("/federate?match[]=a", "X-Deucalion-Consistency", "local").code)
	i.Set(solo.State{})
	require.Equal(t, 200, i.get("/federate?match[]=a&consistency=linearizable").code)
}

func TestFederateHistograms(t *testing.T) {
	i := newInstance(t, nil)
	now := time.Now()
	native := &histogram.Histogram{
		Schema: 1, Count: 4, Sum: 7, ZeroThreshold: 0.001, ZeroCount: 1,
		PositiveSpans: []histogram.Span{{Offset: 2, Length: 2}}, PositiveBuckets: []int64{2, -1},
	}
	custom := &histogram.Histogram{
		Schema: histogram.CustomBucketsSchema, Count: 6, Sum: 9, CustomValues: []float64{1, 2, 4},
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 1}, {Offset: 1, Length: 2}}, PositiveBuckets: []int64{1, 1, 1},
	}
	empty := &histogram.Histogram{Schema: 3}
	series := func(name string, h *histogram.Histogram) prompb.TimeSeries {
		return prompb.TimeSeries{Labels: promLabels("__name__", name), Histograms: []prompb.Histogram{prompb.FromIntHistogram(now.UnixMilli(), h)}}
	}
	i.store(t, series("native", native), series("custom", custom), series("empty", empty), floats(now, 1, "__name__", "native", "x", "y"))

	text := i.scrape(t, "text/plain", `{__name__=~"native|custom|empty"}`)
	require.Len(t, text, 2, "text has no form for native histograms")
	h := text[0].Metric[0].GetHistogram()
	require.Equal(t, "custom", text[0].GetName())
	require.Equal(t, dto.MetricType_HISTOGRAM, text[0].GetType())
	bounds := map[float64]uint64{}
	for _, b := range h.Bucket {
		bounds[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	require.Equal(t, map[float64]uint64{1: 1, 2: 1, 4: 3, math.Inf(1): 6}, bounds)
	require.Equal(t, dto.MetricType_UNTYPED, text[1].GetType())

	// What Prometheus itself makes of the protobuf answer.
	a := i.get("/federate?match[]={__name__=~\"native|empty\"}", "Accept", acceptProto)
	parse, err := textparse.New([]byte(a.text), a.header.Get("Content-Type"), labels.NewSymbolTable(), textparse.ParserOptions{})
	require.NoError(t, err)
	got := map[string]*histogram.FloatHistogram{}
	for {
		entry, err := parse.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if entry == textparse.EntryHistogram {
			var ls labels.Labels
			parse.Labels(&ls)
			_, _, ih, fh := parse.Histogram()
			if fh == nil {
				fh = ih.ToFloat(nil)
			}
			got[ls.Get("__name__")] = fh
		}
	}
	require.True(t, native.ToFloat(nil).Equals(got["native"]), "%v", got["native"])
	require.NotNil(t, got["empty"])
}

// Prometheus's answer to federation follows a reload of the configuration, and so does this.
func TestFederateFollowsTheConfiguration(t *testing.T) {
	conf, err := config.Load("global: {external_labels: {zone: one}}", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	i := newInstance(t, func(c *api.Config) { c.PrometheusConfig = func() config.Config { return *conf } })
	i.write(t, "a", 1)
	require.Contains(t, i.get("/federate?match[]=a").text, `zone="one"`)
	conf, err = config.Load("global: {external_labels: {zone: two}}", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Contains(t, i.get("/federate?match[]=a").text, `zone="two"`)
}
