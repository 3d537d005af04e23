// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/prometheus/prometheus/config"
	"go.yaml.in/yaml/v2"

	"github.com/deucaliondb/deucalion/fsm"
)

var errUnsupported = errors.New("not supported by this version of Deucalion yet")

// defaultMaxExemplars is Prometheus's, which it uses once exemplar storage is enabled; here it always is.
const defaultMaxExemplars = 100_000

// configuration is a Prometheus configuration file that holds nothing which this version would ignore.
type configuration struct {
	file     *config.Config
	logLevel string // of the runtime section; "" if the file does not set it
}

// loadConfig reads path, or takes the defaults for "". Prometheus's own loader decides what is valid.
func loadConfig(path string, logger *slog.Logger) (*configuration, error) {
	if path == "" {
		file, err := config.Load("", logger)
		return &configuration{file: file}, err
	}
	file, err := config.LoadFile(path, false, logger)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	raw := section{}
	if err := yaml.Unmarshal(text, &raw); err != nil {
		return nil, err
	}
	if err := raw.refuseUnsupported(); err != nil {
		return nil, err
	}
	c := &configuration{file: file}
	if runtime, ok := raw["runtime"].(section); ok && runtime["log_level"] != nil {
		c.logLevel = string(file.Runtime.LogLevel)
	}
	return c, nil
}

// section is a part of a YAML file. With keys of type any, the YAML library makes the parts in it sections too.
type section map[any]any

// refuseUnsupported fails if the file asks for something that this version does not do. A section that is there and
// empty asks for nothing.
func (s section) refuseUnsupported() error {
	if err := s.allow("", "global", "runtime", "storage"); err != nil {
		return err
	}
	if global, ok := s.sub("global"); ok {
		// The other globals are defaults for sections that are refused.
		for _, key := range []string{"query_log_file", "scrape_failure_log_file"} {
			if !empty(global[key]) {
				return fmt.Errorf("section global.%s: %w", key, errUnsupported)
			}
		}
	}
	storage, _ := s.sub("storage")
	if err := storage.allow("storage.", "tsdb", "exemplars"); err != nil {
		return err
	}
	tsdb, _ := storage.sub("tsdb")
	return tsdb.allow("storage.tsdb.", "out_of_order_time_window")
}

// allow fails if the section holds a key beyond the given ones.
func (s section) allow(prefix string, keys ...string) error {
	var unknown []string
	for key, value := range s {
		if name := fmt.Sprint(key); !slices.Contains(keys, name) && !empty(value) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	return fmt.Errorf("section %s%s: %w", prefix, unknown[0], errUnsupported)
}

func (s section) sub(key string) (section, bool) {
	sub, ok := s[key].(section)
	return sub, ok
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		return len(v) == 0
	case section:
		return len(v) == 0
	case string:
		return v == ""
	}
	return false
}

// settings are what the file says about the rules that must be the same on all nodes.
func (c *configuration) settings() fsm.Settings {
	s := fsm.Settings{MaxExemplars: defaultMaxExemplars}
	if tsdb := c.file.StorageConfig.TSDBConfig; tsdb != nil {
		s.OutOfOrderWindow = time.Duration(tsdb.OutOfOrderTimeWindow) * time.Millisecond
	}
	if exemplars := c.file.StorageConfig.ExemplarsConfig; exemplars != nil {
		s.MaxExemplars = max(exemplars.MaxExemplars, 0)
	}
	return s
}
