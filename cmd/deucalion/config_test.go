// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
)

// load reads text as a configuration file, with the flags args.
func load(t *testing.T, text string, args ...string) (*configuration, error) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(text), 0o600))
	return loadFrom(t, dir, args...)
}

func loadFrom(t *testing.T, dir string, args ...string) (*configuration, error) {
	t.Helper()
	o, err := parse(t, append(args, "--config.file="+filepath.Join(dir, "prometheus.yml"))...)
	require.NoError(t, err)
	logger := slog.New(slog.DiscardHandler)
	require.NoError(t, o.setFeatures(logger))
	return loadConfig(o, o.features.parser(), logger)
}

func TestConfigSettings(t *testing.T) {
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
	c, err := load(t, "runtime: {log_level: info}", "--log.level=debug")
	require.NoError(t, err)
	require.Equal(t, "info", c.logLevel, "the file wins")
	c, err = load(t, "runtime: {gogc: 90}", "--log.level=debug")
	require.NoError(t, err)
	require.Empty(t, c.logLevel)
}

// Without the flag the default file is used when it is there.
func TestConfigDefaultFile(t *testing.T) {
	t.Chdir(t.TempDir())
	o, err := parse(t)
	require.NoError(t, err)
	c, err := loadConfig(o, o.features.parser(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Equal(t, time.Minute, time.Duration(c.file.GlobalConfig.EvaluationInterval))
	require.NoError(t, os.WriteFile("prometheus.yml", []byte("global: {evaluation_interval: 7s}"), 0o600))
	c, err = loadConfig(o, o.features.parser(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Equal(t, 7*time.Second, time.Duration(c.file.GlobalConfig.EvaluationInterval))
}

// What the file says of retention wins over the flags, as in Prometheus.
func TestConfigRetention(t *testing.T) {
	flags := []string{"--storage.tsdb.retention.time=30d", "--storage.tsdb.retention.size=1GB"}
	for text, want := range map[string]retention{
		"": {30 * 24 * time.Hour, 1 << 30},
		"storage: {tsdb: {out_of_order_time_window: 1m}}":         {30 * 24 * time.Hour, 1 << 30},
		"storage: {tsdb: {retention: {time: 1d}}}":                {24 * time.Hour, 0},
		"storage: {tsdb: {retention: {size: 5GB}}}":               {0, 5 << 30},
		"storage: {tsdb: {retention: {time: 0s}}}":                {0, 0}, // for ever
		"storage: {tsdb: {retention: {}}}":                        {0, 0},
		"storage: {tsdb: {retention: }}":                          {30 * 24 * time.Hour, 1 << 30},
		"storage: {tsdb: {retention: {time: 2d, size: 512MB}}}":   {48 * time.Hour, 512 << 20},
		"storage: {tsdb: {retention: {size: 1B, percentage: 1}}}": {0, -1},
	} {
		c, err := load(t, text, flags...)
		require.NoError(t, err, text)
		got := c.retention(t.TempDir())
		if want.size < 0 {
			require.Greater(t, got.size, int64(1<<20), "a share of the file system")
			want.size = got.size
		}
		require.Equal(t, want, got, text)
	}
}

func TestConfigRefused(t *testing.T) {
	for _, text := range []string{
		"nonsense: 1", "global: {scrape_interval: x}", "{",
		"scrape_config_files: [scrape.yml]", "rule_files: [rules.yml]",
	} {
		dir := t.TempDir()
		for name, content := range map[string]string{
			"prometheus.yml": text, "scrape.yml": "scrape_configs: [{}]", "rules.yml": "groups: [{name: a, rules: [{expr: '('}]}]",
		} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
		}
		_, err := loadFrom(t, dir)
		require.Error(t, err, text)
	}
	_, err := loadFrom(t, t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)
}

// The hash tells of every byte that counts, and not of where the files are.
func TestConfigHash(t *testing.T) {
	write := func(files map[string]string) string {
		dir := t.TempDir()
		for name, content := range files {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
		}
		h, err := hashFiles(filepath.Join(dir, "c.yml"), []string{filepath.Join(dir, "*.rules")})
		require.NoError(t, err)
		return h
	}
	base := write(map[string]string{"c.yml": "a", "x.rules": "b", "y.rules": "c"})
	require.Len(t, base, 16)
	require.Equal(t, base, write(map[string]string{"c.yml": "a", "x.rules": "b", "y.rules": "c"}), "in another directory")
	for name, files := range map[string]map[string]string{
		"file":    {"c.yml": "A", "x.rules": "b", "y.rules": "c"},
		"rules":   {"c.yml": "a", "x.rules": "b", "y.rules": "C"},
		"missing": {"c.yml": "a", "x.rules": "b"},
		"renamed": {"c.yml": "a", "x.rules": "b", "z.rules": "c"},
		"moved":   {"c.yml": "a", "x.rules": "bc", "y.rules": ""},
	} {
		require.NotEqual(t, base, write(files), name)
	}
}

func TestConfigWarns(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yml")
	for text, warns := range map[string]int{
		"storage: {tsdb: {stale_series_compaction_threshold: 0.5, chunk_encoding: {floats: xor2}}}": 2,
		"storage: {tsdb: {chunk_encoding: {floats: xor}}}":                                          0,
		"": 0,
	} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		o, err := parse(t, "--config.file="+file)
		require.NoError(t, err)
		var log bytes.Buffer
		_, err = loadConfig(o, o.features.parser(), slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		require.Equal(t, warns, strings.Count(log.String(), "This setting of the configuration file has no effect"), text)
	}
}

func TestConfigErrorEndsTheProgram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yml")
	require.NoError(t, os.WriteFile(file, []byte("global: {scrape_interval: x}"), 0o600))
	var out bytes.Buffer
	require.Equal(t, exitUsage, run(context.Background(), []string{"--config.file=" + file}, &out, &out))
	require.Contains(t, out.String(), "Error loading config (--config.file="+file)
}

func TestFeatures(t *testing.T) {
	o, err := parse(t, "--enable-feature=promql-experimental-functions,exemplar-storage,no-such", "--enable-feature=auto-reload-config")
	require.NoError(t, err)
	var log bytes.Buffer
	require.NoError(t, o.setFeatures(slog.New(slog.NewTextHandler(&log, nil))))
	require.True(t, o.features.has("promql-experimental-functions"))
	require.True(t, o.autoReload)
	_, unknown := featureSet{}.parser().ParseExpr(`sort_by_label(a, "b")`)
	require.Error(t, unknown)
	_, err = o.features.parser().ParseExpr(`sort_by_label(a, "b")`)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(log.String(), "Unknown option for --enable-feature\" option=no-such"))
	require.Contains(t, log.String(), "option=exemplar-storage reason=")
	o, err = parse(t, "--enable-feature=otlp-deltatocumulative,otlp-native-delta-ingestion")
	require.NoError(t, err)
	require.Error(t, o.setFeatures(slog.New(slog.DiscardHandler)))
}

// Flags that have no effect here are accepted, shown and warned about.
func TestIgnoredFlags(t *testing.T) {
	o, err := parse(t, "--storage.tsdb.wal-compression", "--storage.tsdb.no-lockfile")
	require.NoError(t, err)
	var log bytes.Buffer
	o.ignored.warn(slog.New(slog.NewTextHandler(&log, nil)))
	require.Equal(t, 2, strings.Count(log.String(), "This flag has no effect"), log.String())
	require.Equal(t, "2h", o.shown["storage.tsdb.min-block-duration"])
	_, err = parse(t, "--storage.tsdb.min-block-duration=nonsense")
	require.Error(t, err)
}
