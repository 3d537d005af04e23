// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package sidebyside_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// writeConfig writes the configuration of both servers with its rule file, and returns its path.
func writeConfig(t *testing.T, e exporters) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		return path
	}
	write("rules.yml", ruleFile)
	write("targets.json", fmt.Sprintf(`[{"targets": [%q], "labels": {"from": "file"}}]`, e.plain))
	return write("prometheus.yml", fmt.Sprintf(configFile, e.plain, e.rich, e.text, e.text, e.broken))
}

const configFile = `
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
  external_labels: {cluster: demo}
rule_files: [rules.yml]
storage: {tsdb: {out_of_order_time_window: 10m}}
scrape_configs:
- job_name: plain
  static_configs: [{targets: ['%s'], labels: {env: test}}]
  extra_scrape_metrics: true
- job_name: rich
  scrape_native_histograms: true
  always_scrape_classic_histograms: true
  static_configs: [{targets: ['%s']}]
- job_name: text
  static_configs: [{targets: ['%s']}]
- job_name: honor
  honor_labels: true
  static_configs: [{targets: ['%s']}]
  metric_relabel_configs:
  - {source_labels: [__name__], regex: untyped_.*, action: drop}
- job_name: broken
  static_configs: [{targets: ['%s', '127.0.0.1:1']}]
- job_name: files
  file_sd_configs: [{files: [targets.json]}]
  sample_limit: 5
- job_name: dropped
  static_configs: [{targets: ['127.0.0.1:1', '127.0.0.1:2']}]
  relabel_configs: [{action: drop, regex: .*, source_labels: [__address__]}]
`

const ruleFile = `
groups:
- name: first
  rules:
  - {record: job:up:sum, expr: sum by (job) (up)}
  - {record: job:up:twice, expr: 'job:up:sum * 2', labels: {kind: chained}}
  - {record: demo:rate, expr: 'rate(demo_seconds_total[10s])'}
  - {record: demo:native, expr: 'sum(rate(demo_native_seconds[10s]))'}
- name: second
  interval: 2s
  limit: 10
  rules:
  - alert: TargetDown
    expr: up == 0
    for: 5s
    keep_firing_for: 10s
    labels: {severity: page}
    annotations: {summary: '{{ $labels.instance }} is down: {{ $value }} {{ $externalLabels.cluster }}'}
  - {alert: Watchdog, expr: vector(1)}
  - {alert: Never, expr: 'up > 5'}
  - {alert: Pending, expr: 'up == 1', for: 1h}
- name: broken
  rules:
  - {record: many:to:many, expr: 'demo_temperature_celsius * on (floor) demo_temperature_celsius'}
`
