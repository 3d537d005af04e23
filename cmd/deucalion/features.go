// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/template"
	"github.com/prometheus/prometheus/util/features"
)

// featureSet is what --enable-feature has switched on.
type featureSet struct{ names []string }

func (f featureSet) has(name string) bool { return slices.Contains(f.names, name) }

// knownFeatures are those that do something here.
var knownFeatures = []string{
	"auto-reload-config", "concurrent-rule-eval", "created-timestamp-zero-ingestion", "extra-scrape-metrics", "openmetrics2",
	"otlp-deltatocumulative", "otlp-native-delta-ingestion", "promql-binop-fill-modifiers", "promql-delayed-name-removal",
	"promql-experimental-functions", "promql-extended-range-selectors", "promql-per-step-stats", "search-api", "st-synthesis",
	"type-and-unit-labels", "zstd-scrape",
}

// idleFeatures are Prometheus's that have no effect, each with the reason.
var idleFeatures = map[string]string{
	"exemplar-storage":            "exemplars are always stored; storage.exemplars.max_exemplars: 0 switches them off",
	"metadata-wal-records":        "metadata is always replicated",
	"native-histograms":           "native histograms are always stored; set scrape_native_histograms to scrape them",
	"ooo-native-histograms":       "it is always on",
	"promql-duration-expr":        "it is always on",
	"memory-snapshot-on-shutdown": "a graceful stop always makes a snapshot",
	"delayed-compaction":          "the nodes merge their blocks independently of each other",
	"fast-startup":                "there is no write-ahead log beside Raft's",
	"use-uncached-io":             "blocks are read soon after they are written",
	"xor2-encoding":               "chunks are written with the XOR encoding",
	"histograms-st-encoding":      "start timestamps are not stored",
	"st-storage":                  "start timestamps are not stored; created-timestamp-zero-ingestion makes samples of them",
	"use-start-timestamps":        "start timestamps are not stored",
	"old-ui":                      "there is one user interface",
}

// setFeatures reads --enable-feature. Unknown names are a warning, as in Prometheus.
func (o *options) setFeatures(logger *slog.Logger) error {
	for _, list := range o.featureList {
		for name := range strings.SplitSeq(list, ",") {
			why, idle := idleFeatures[name]
			switch {
			case idle:
				logger.Warn("This option for --enable-feature has no effect", "option", name, "reason", why)
			case slices.Contains(knownFeatures, name):
				o.features.names = append(o.features.names, name)
				logger.Info("Feature enabled", "option", name)
			default:
				logger.Warn("Unknown option for --enable-feature", "option", name)
			}
		}
	}
	if o.features.has("otlp-deltatocumulative") && o.features.has("otlp-native-delta-ingestion") {
		return errors.New("cannot enable otlp-deltatocumulative and otlp-native-delta-ingestion features at the same time")
	}
	o.autoReload = o.autoReload || o.features.has("auto-reload-config")
	o.setConfigDefaults(logger)
	return nil
}

// setConfigDefaults changes what the configuration file has by default. The library reads these defaults from its
// package variables, and has no other way.
func (o *options) setConfigDefaults(logger *slog.Logger) {
	flags := o.retention()
	config.DefaultTSDBRetentionConfig = config.TSDBRetentionConfig{Time: model.Duration(flags.time), Size: units.Base2Bytes(flags.size)}
	if o.features.has("extra-scrape-metrics") {
		on := true
		config.DefaultConfig.GlobalConfig.ExtraScrapeMetrics = &on
		config.DefaultGlobalConfig.ExtraScrapeMetrics = &on
	}
	if o.features.has("created-timestamp-zero-ingestion") {
		config.DefaultConfig.GlobalConfig.ScrapeProtocols = config.DefaultProtoFirstScrapeProtocols
		config.DefaultGlobalConfig.ScrapeProtocols = config.DefaultProtoFirstScrapeProtocols
		logger.Info("Changed default scrape_protocols to prefer PrometheusProto format", "global.scrape_protocols", fmt.Sprint(config.DefaultGlobalConfig.ScrapeProtocols))
	}
}

// parser is the one for all expressions.
func (f featureSet) parser() parser.Parser {
	return parser.NewParser(parser.Options{
		ExperimentalDurationExpr:     true,
		EnableExperimentalFunctions:  f.has("promql-experimental-functions"),
		EnableExtendedRangeSelectors: f.has("promql-extended-range-selectors"),
		EnableBinopFillModifiers:     f.has("promql-binop-fill-modifiers"),
	})
}

// featureRegistry is what /api/v1/features shows of the process, its storage and rules. The engine, scraping and the API
// add theirs; the manager of rules does too, but only on the node that evaluates them.
func (o *options) featureRegistry() features.Collector {
	r := features.NewRegistry()
	r.Enable(features.Prometheus, "server_mode")
	r.Disable(features.Prometheus, "agent_mode")
	r.Enable(features.Prometheus, labels.ImplementationName)
	r.Set(features.Prometheus, "auto_reload_config", o.autoReload)
	for _, name := range []string{"exemplar_storage", "isolation", "native_histograms"} {
		r.Enable(features.TSDB, name)
	}
	for _, name := range []string{"delayed_compaction", "histograms_st_encoding", "st_storage", "use_uncached_io", "xor2_encoding"} {
		r.Disable(features.TSDB, name)
	}
	for _, name := range []string{"ui_v2", "ui_v3"} { // there is a page of our own
		r.Disable(features.UI, name)
	}
	r.Set(features.Rules, "concurrent_rule_eval", o.features.has("concurrent-rule-eval"))
	r.Enable(features.Rules, "keep_firing_for")
	r.Enable(features.Rules, "query_offset")
	if o.features.has("st-synthesis") {
		r.Enable(features.Scrape, "st-synthesis")
	}
	template.RegisterFeatures(r)
	return r
}
