// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
)

// /metrics has what Prometheus's packages register with the global registry, and nothing twice, which would be a 500.
func TestLibraryMetrics(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yml")
	require.NoError(t, os.WriteFile(file, []byte("scrape_configs: [{job_name: closed, static_configs: [{targets: ['127.0.0.1:1']}]}]"), 0o600))
	p := launch(t, t.TempDir(), "--config.file="+file)
	base := p.ready(t)
	var missing []string
	require.Eventually(t, func() bool {
		code, text, err := get(base + "/metrics")
		require.NoError(t, err)
		require.Equal(t, 200, code, text)
		missing = missing[:0]
		for _, name := range []string{
			`net_conntrack_listener_conn_accepted_total{listener_name="http"} `,
			`net_conntrack_listener_conn_closed_total{listener_name="http"} `,
			`net_conntrack_dialer_conn_attempted_total{dialer_name="closed"} `,
			"prometheus_template_text_expansions_total 0",
			"prometheus_template_text_expansion_failures_total 0",
			"prometheus_remote_storage_string_interner_zero_reference_releases_total 0",
		} {
			if !strings.Contains(text, "\n"+name) {
				missing = append(missing, name)
			}
		}
		return len(missing) == 0
	}, 60*time.Second, 50*time.Millisecond, "%v", &missing)
	_, text, err := get(base + "/metrics")
	require.NoError(t, err)
	require.NotContains(t, text, `accepted_total{listener_name="http"} 0`)
}

// The feature type-and-unit-labels reaches the receiver of remote write 2.0.
func TestTypeAndUnitLabelsOfRemoteWrite(t *testing.T) {
	p := launch(t, t.TempDir(), "--enable-feature=type-and-unit-labels")
	base := p.ready(t)
	body, err := (&writev2.Request{
		Symbols: []string{"", "__name__", "m", "bytes"},
		Timeseries: []writev2.TimeSeries{{
			LabelsRefs: []uint32{1, 2}, Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, UnitRef: 3},
			Samples: []writev2.Sample{{Timestamp: time.Now().UnixMilli(), Value: 1}},
		}},
	}).Marshal()
	require.NoError(t, err)
	res, err := http.Post(base+"/api/v1/write", "application/x-protobuf;proto=io.prometheus.write.v2.Request", bytes.NewReader(snappy.Encode(nil, body)))
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusNoContent, res.StatusCode)
	_, text, err := get(base + "/api/v1/query?query=" + url.QueryEscape(`m{__type__="gauge",__unit__="bytes"}`))
	require.NoError(t, err)
	require.Contains(t, text, `"__name__":"m"`)
}
