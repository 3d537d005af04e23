// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v2"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/fault"
)

// scraped lets two targets be scraped five times by a server that stores all, and returns what it stores.
func scraped(t *testing.T) (*fault.Scrapes, client.Data) {
	t.Helper()
	s, err := fault.NewScrapes("127.0.0.1", 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	data := client.Data{}
	start := time.Now().UnixMilli()
	for n := range 5 {
		for i, url := range scrapeURLs(t, s) {
			resp, err := http.Get(url)
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			_, line, _ := strings.Cut(string(body), "\n")
			var name string
			var v float64
			_, err = fmt.Sscan(line, &name, &v)
			require.NoError(t, err, "%s", body)
			key := scrapeKey(url, name, i)
			data[key] = append(data[key], client.Sample{T: start + int64(1000*n*(n+1)), Bits: math.Float64bits(v)})
		}
	}
	for key := range data {
		data[key] = append(data[key], client.Sample{T: start + 90000, Bits: value.StaleNaN})
	}
	return s, data
}

// scrapeURLs reads the configuration as a Prometheus does.
func scrapeURLs(t *testing.T, s *fault.Scrapes) (out []string) {
	t.Helper()
	var jobs []*promconfig.ScrapeConfig
	require.NoError(t, yaml.UnmarshalStrict([]byte(s.ScrapeConfig()), &jobs))
	require.Len(t, jobs, 1)
	for _, d := range jobs[0].ServiceDiscoveryConfigs {
		for _, group := range d.(discovery.StaticConfig) {
			out = append(out, fmt.Sprintf("http://%s%s", group.Targets[0]["__address__"], group.Labels["__metrics_path__"]))
		}
	}
	return out
}

func scrapeKey(url, name string, target int) string {
	address, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	return client.Key(client.Labels("__name__", name, "instance", address, "job", "fault", "target", fmt.Sprint(target)))
}

// stores is a server that holds data.
func stores(name string, data client.Data) fault.Reader {
	return fault.Reader{Name: name, Read: func(_ context.Context, _, _ int64, _ ...*prompb.LabelMatcher) (client.Data, error) {
		return data, nil
	}}
}

func TestScrapes(t *testing.T) {
	s, data := scraped(t)
	found, err := s.Check(t.Context(), []fault.Reader{stores("n1", data), stores("n2", data)}, true, 10)
	require.NoError(t, err)
	require.Empty(t, found)
	require.Equal(t, fault.ScrapesSummary{Targets: 2, Served: 10, Stored: 10, Gap: 8e9}, s.Summary())
	resp, err := http.Get(scrapeURLs(t, s)[0])
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode, "it is scraped while it is checked")
}

func TestScrapesFindDamage(t *testing.T) {
	for name, damage := range map[string]struct {
		do   func(key string, d client.Data)
		want string
	}{
		"ghost": {func(key string, d client.Data) {
			d[key] = append(d[key], client.Sample{T: 1e6, Bits: math.Float64bits(6)})
		}, "n1: target 0 has never served 6"},
		"altered": {func(key string, d client.Data) { d[key][1].Bits++ }, "n1: target 0 has never served"},
		"twice": {func(key string, d client.Data) {
			d[key][4].Bits = d[key][3].Bits
		}, "n1: scrape 4 of target 0 is stored twice, at "},
		"misdated": {func(key string, d client.Data) {
			d[key][1].T -= (20 * time.Minute).Milliseconds()
		}, "n1: scrape 2 of target 0 is stored -19m5"},
		"nothing": {func(key string, d client.Data) { d[key] = nil }, "n1: target 0 was scraped and nothing is stored"},
		"foreign": {func(key string, d client.Data) { d[`{a="b"}`] = d[key] }, "n1: series of no target"},
	} {
		t.Run(name, func(t *testing.T) {
			s, data := scraped(t)
			damage.do(scrapeKey(scrapeURLs(t, s)[0], "fault_scrapes_total", 0), data)
			found, err := s.Check(t.Context(), []fault.Reader{stores("n1", data)}, true, 3)
			require.NoError(t, err)
			require.Len(t, found, 1)
			require.True(t, strings.HasPrefix(found[0], damage.want), found[0])
		})
	}
}

// Nodes that differ are found, if they go on to differ and have to be alike.
func TestScrapesOfNodesThatDiffer(t *testing.T) {
	s, data := scraped(t)
	s.Settle = 2 * time.Second
	less := client.Data{}
	for key, samples := range data {
		less[key] = samples[1:]
	}
	nodes := []fault.Reader{stores("n1", data), stores("n2", less)}
	found, err := s.Check(t.Context(), nodes, false, 10)
	require.NoError(t, err)
	require.Empty(t, found)
	require.Equal(t, 8, s.Summary().Stored)
	found, err = s.Check(t.Context(), nodes, true, 10)
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.Contains(t, found[0], "n1 and n2 differ: sample missing")
}

// A scrape that is stored late on one node is no difference.
func TestScrapesSettle(t *testing.T) {
	s, data := scraped(t)
	reads := 0
	late := fault.Reader{Name: "n2", Read: func(context.Context, int64, int64, ...*prompb.LabelMatcher) (client.Data, error) {
		if reads++; reads == 1 {
			return nil, nil
		}
		return data, nil
	}}
	found, err := s.Check(t.Context(), []fault.Reader{stores("n1", data), late}, true, 10)
	require.NoError(t, err)
	require.Empty(t, found)
}
