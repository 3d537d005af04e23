// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
)

func load(t *testing.T, text string) (*configuration, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return loadConfig(file, slog.New(slog.DiscardHandler))
}

func TestConfigHonoured(t *testing.T) {
	for text, want := range map[string]fsm.Settings{
		"":                                {MaxExemplars: 100_000},
		"global: {scrape_interval: 5s}":   {MaxExemplars: 100_000},
		"storage: {}":                     {MaxExemplars: 100_000},
		"scrape_configs: []\nrule_files:": {MaxExemplars: 100_000},
		"storage: {tsdb: {out_of_order_time_window: 30m}}":                                   {OutOfOrderWindow: 30 * time.Minute, MaxExemplars: 100_000},
		"storage: {exemplars: {max_exemplars: 7}}":                                           {MaxExemplars: 7},
		"storage: {exemplars: {max_exemplars: 0}, tsdb: {out_of_order_time_window: 1500ms}}": {OutOfOrderWindow: 1500 * time.Millisecond},
		"global: {external_labels: {a: b}, evaluation_interval: 30s}\nruntime: {gogc: 90}\n": {MaxExemplars: 100_000},
	} {
		c, err := load(t, text)
		require.NoError(t, err, text)
		require.Equal(t, want, c.settings(), text)
	}
	c, err := loadConfig("", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Equal(t, fsm.Settings{MaxExemplars: 100_000}, c.settings())
	require.Equal(t, time.Minute, time.Duration(c.file.GlobalConfig.EvaluationInterval))
	c, err = load(t, "runtime: {log_level: debug}")
	require.NoError(t, err)
	require.Equal(t, "debug", c.logLevel)
}

func TestConfigRefused(t *testing.T) {
	for text, section := range map[string]string{
		"scrape_configs: [{job_name: a}]":                                "scrape_configs",
		"rule_files: [a.yml]":                                            "rule_files",
		"alerting: {alertmanagers: [{static_configs: []}]}":              "alerting",
		"remote_write: [{url: 'http://x'}]":                              "remote_write",
		"remote_read: [{url: 'http://x'}]":                               "remote_read",
		"otlp: {keep_identifying_resource_attributes: true}":             "otlp",
		"tracing: {endpoint: x}":                                         "tracing",
		"scrape_config_files: [a.yml]":                                   "scrape_config_files",
		"storage: {tsdb: {retention: {time: 1d}}}":                       "storage.tsdb.retention",
		"storage: {tsdb: {stale_series_compaction_threshold: 0.5}}":      "storage.tsdb.stale_series_compaction_threshold",
		"global: {query_log_file: q.log}":                                "global.query_log_file",
		"global: {scrape_interval: 5s}\nscrape_configs: [{job_name: a}]": "scrape_configs",
	} {
		_, err := load(t, text)
		require.ErrorIs(t, err, errUnsupported, text)
		require.ErrorContains(t, err, "section "+section+": not supported by this version of Deucalion yet", text)
	}
	for _, text := range []string{"nonsense: 1", "global: {scrape_interval: x}", "{"} {
		_, err := load(t, text)
		require.Error(t, err, text)
	}
	_, err := loadConfig(filepath.Join(t.TempDir(), "absent.yml"), slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestConfigErrorEndsTheProgram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yml")
	require.NoError(t, os.WriteFile(file, []byte("rule_files: [a.yml]"), 0o600))
	var out bytes.Buffer
	require.Equal(t, exitUsage, run(context.Background(), []string{"--config.file=" + file}, &out, &out))
	require.Contains(t, out.String(), "section rule_files: not supported")
}
