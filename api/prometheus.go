// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net/url"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/features"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

const appName = "Deucalion Server"

var errOwnHandler = errors.New("served by Deucalion's own handler")

// newPrometheusAPI wires Prometheus's handlers to the storage. What writes to the storage is left out: the write
// and admin routes are our own.
func (a *API) newPrometheusAPI() *v1.API {
	cfg := a.cfg
	scraping := cfg.Scraping
	if scraping == nil {
		scraping = nothing{}
	}
	return v1.NewAPI(
		cfg.Engine, searchable{cfg.Source},
		nil, nil, // appendables: no stock receiver is enabled
		cfg.FSM,
		func(context.Context) v1.ScrapePoolsRetriever { return scraping },
		func(ctx context.Context) v1.TargetRetriever { return a.targetsFor(ctx, scraping) },
		func(context.Context) v1.AlertmanagerRetriever { return a.ruler() },
		cfg.PrometheusConfig,
		cfg.Flags,
		v1.GlobalURLOptions{ListenAddress: cfg.ListenAddress, Host: cfg.ExternalURL.Host, Scheme: cfg.ExternalURL.Scheme},
		a.gate.wrapFunc,
		adminStats{a.cfg.FSM},
		"",    // directory for snapshots: ours are made by the state machine
		false, // admin: our own handlers
		cfg.Search.Enable, cfg.Search.MaxLimit,
		cfg.Logger,
		func(context.Context) v1.RulesRetriever { return a.ruler() },
		0, 0, 0, // limits of the stock read handler, which is not routed
		false, // agent
		cfg.CORSOrigin,
		a.runtimeInfo,
		cfg.BuildInfo,
		cfg.Notifications.Get, cfg.Notifications.Sub,
		headChunks{cfg.Gatherer},
		nil,        // registerer: only for the handlers that are not routed
		nil,        // stats renderer: default
		false, nil, // remote write
		false, false, false, // OTLP: our own handler
		false, // start timestamps as zero samples
		0,     // lookback delta of OTLP
		false, false,
		nil, // error codes: default
		cfg.Features,
		v1.OpenAPIOptions{ExternalURL: cfg.ExternalURL.String(), Version: cfg.BuildInfo.Version, MaxSearchLimit: cfg.Search.MaxLimit},
		cfg.Parser,
	)
}

// registerFeatures fills /api/v1/features as Prometheus's web handler does.
func (a *API) registerFeatures() {
	r := a.cfg.Features
	r.Set(features.API, "admin", a.cfg.EnableAdmin)
	r.Enable(features.API, "remote_write_receiver")
	for _, name := range []string{
		"label_values_match", "query_warnings", "query_stats", "time_range_series", "time_range_labels",
		"exclude_alerts", "openapi_3.1", "openapi_3.2",
	} {
		r.Enable(features.API, name)
	}
	for _, algorithm := range v1.FuzzAlgorithms() {
		r.Enable(features.API, "search_fuzz_alg_"+algorithm)
	}
	r.Set(features.API, "lifecycle", a.cfg.EnableLifecycle)
	r.Set(features.API, "otlp_write_receiver", a.cfg.EnableOTLP)
	r.Set(features.API, "search", a.cfg.Search.Enable)
	r.Set(features.OTLPReceiver, "delta_conversion", a.cfg.OTLP.ConvertDelta)
	r.Set(features.OTLPReceiver, "native_delta_ingestion", a.cfg.OTLP.NativeDelta)
}

// nothing stands in for what this version does not do: it scrapes no targets, evaluates no rules and notifies nobody,
// and the API says so in the shapes of Prometheus.
type nothing struct{}

func (nothing) ScrapePools() []string                       { return []string{} }
func (nothing) TargetsActive() map[string][]*scrape.Target  { return nil }
func (nothing) TargetsDropped() map[string][]*scrape.Target { return nil }
func (nothing) TargetsDroppedCounts() map[string]int        { return nil }
func (nothing) Alertmanagers() []*url.URL                   { return nil }
func (nothing) DroppedAlertmanagers() []*url.URL            { return nil }
func (nothing) RuleGroups() []*rules.Group                  { return nil }
func (nothing) AlertingRules() []*rules.AlertingRule        { return nil }
func (nothing) Evaluates(context.Context) error             { return errors.New("this node evaluates no rules") }

func (nothing) ScrapePoolConfig(string) (*config.ScrapeConfig, error) {
	return nil, errors.New("scrape pool not found")
}

// storageStats is what adminStats reads; *fsm.FSM has it.
type storageStats interface {
	Stats(label string, limit int) (*tsdb.Stats, error)
	BlockMetas() []tsdb.BlockMeta
}

// adminStats shows the storage to the status handlers. The methods that change something are never reached.
type adminStats struct{ storage storageStats }

func (s adminStats) Stats(label string, limit int) (*tsdb.Stats, error) {
	return s.storage.Stats(label, limit)
}
func (s adminStats) BlockMetas() ([]tsdb.BlockMeta, error) { return s.storage.BlockMetas(), nil }

// WALReplayStatus is zero: there is no write-ahead log beside Raft's.
func (adminStats) WALReplayStatus() (tsdb.WALReplayStatus, error) {
	return tsdb.WALReplayStatus{}, nil
}
func (adminStats) CleanTombstones() error      { return errOwnHandler }
func (adminStats) Snapshot(string, bool) error { return errOwnHandler }
func (adminStats) Delete(context.Context, int64, int64, ...*labels.Matcher) error {
	return errOwnHandler
}

// headChunks completes the metrics for /api/v1/status/tsdb, which takes its chunk count from the one of the stock
// head; without it the count would be the NaN of an integer. Chunks in memory are not counted here, so it is 0.
type headChunks struct{ prometheus.Gatherer }

func (g headChunks) Gather() ([]*dto.MetricFamily, error) {
	const name = "prometheus_tsdb_head_chunks"
	families, err := g.Gatherer.Gather()
	for _, f := range families {
		if f.GetName() == name {
			return families, err
		}
	}
	zero := &dto.MetricFamily{Name: new(string), Type: dto.MetricType_GAUGE.Enum(), Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: new(float64)}}}}
	*zero.Name = name
	return append(families, zero), err
}
