// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	promruntime "github.com/prometheus/prometheus/util/runtime"
	"go.yaml.in/yaml/v2"

	"github.com/deucaliondb/deucalion/fsm"
)

// defaultMaxExemplars is Prometheus's default of the same setting; there it needs a feature flag to count at all.
const defaultMaxExemplars = 100_000

// configuration is what one reading of the configuration file gave. It is not changed afterwards.
type configuration struct {
	file     *config.Config
	logLevel string // of the runtime section; "" if the file does not set it
	hash     string // of what all nodes should have alike: the file and those that it names
	sum      string // tells whether the files have changed; "" without --config.auto-reload
}

// loadConfig reads and checks the configuration file with all files that it names.
func loadConfig(o *options, parse parser.Parser, logger *slog.Logger) (*configuration, error) {
	path := o.configFile
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && !o.configFileSet {
		path = "" // the default name, and no such file: the built-in defaults
	}
	c := &configuration{}
	if o.autoReload {
		c.sum = o.checksum(logger) // first: what changes from now on is found
	}
	var err error
	if path == "" {
		c.file, err = config.Load("", logger)
	} else {
		c.file, err = config.LoadFile(path, false, logger)
	}
	if err != nil {
		return nil, err
	}
	if _, err := c.file.GetScrapeConfigs(); err != nil {
		return nil, fmt.Errorf("scrape config files: %w", err)
	}
	if err := rules.ParseFiles(c.file.RuleFiles, c.file.GlobalConfig.MetricNameValidationScheme, parse, logger); err != nil {
		return nil, fmt.Errorf("rule files: %w", err)
	}
	warnIgnored(c.file, logger)
	if c.logLevel, err = ownLogLevel(path); err != nil {
		return nil, err
	}
	c.hash, err = hashFiles(path, slices.Concat(c.file.RuleFiles, c.file.ScrapeConfigFiles))
	return c, err
}

// checksum is of the configuration file and the files that it names, or "" if they cannot be read.
func (o *options) checksum(logger *slog.Logger) string {
	s, err := config.GenerateChecksum(o.configFile)
	if err != nil {
		logger.Error("Cannot tell whether the configuration has changed", "err", err)
	}
	return s
}

// ownLogLevel is the level that the file itself sets, which the library does not tell from its default.
func ownLogLevel(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var raw struct {
		Runtime struct {
			LogLevel string `yaml:"log_level"`
		} `yaml:"runtime"`
	}
	if err := yaml.Unmarshal(text, &raw); err != nil {
		return "", err
	}
	return raw.Runtime.LogLevel, nil
}

// hashFiles hashes the content of the configuration file and of the files that the patterns match. Unlike Prometheus's
// own checksum it leaves directories out: nodes may keep equal files in different places.
func hashFiles(path string, patterns []string) (string, error) {
	if path == "" {
		return "none", nil
	}
	files := []string{path}
	for _, p := range patterns {
		matches, err := filepath.Glob(p)
		if err != nil {
			return "", err
		}
		files = append(files, matches...)
	}
	h := sha256.New()
	for i, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		name := filepath.Base(f)
		if i == 0 {
			name = ""
		}
		fmt.Fprintf(h, "%s\x00%d\x00%s", name, len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// settings are what all nodes have to agree on; the leader's file wins.
func (c *configuration) settings() fsm.Settings {
	s := fsm.Settings{MaxExemplars: defaultMaxExemplars}
	s.OutOfOrderWindow = time.Duration(c.file.StorageConfig.TSDBConfig.OutOfOrderTimeWindow) * time.Millisecond
	if exemplars := c.file.StorageConfig.ExemplarsConfig; exemplars != nil {
		s.MaxExemplars = max(exemplars.MaxExemplars, 0)
	}
	return s
}

// retention is the limits of the file, or the flags' where it has none, see setConfigDefaults. dir is on the file system
// that a percentage is of.
func (c *configuration) retention(dir string) retention {
	r := c.file.StorageConfig.TSDBConfig.Retention
	out := retention{time: time.Duration(r.Time), size: int64(r.Size)}
	if r.Percentage > 0 {
		if total := promruntime.FsSize(dir); total > 0 {
			out.size = int64(float64(total) * r.Percentage / 100)
		}
	}
	if out.time < 0 { // more than 292 years overflow; Prometheus makes them 100
		out.time = maxRetention
	}
	return out
}
