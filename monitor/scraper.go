// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/logging"
)

// managerReload is how long the scrape manager may hold back a new division of the targets. The interval that the user
// has asked for bounds how often discovery is followed, see spread.
const managerReload = model.Duration(100 * time.Millisecond)

// ScraperOptions configure a Scraper.
type ScraperOptions struct {
	Cluster    Cluster
	Appendable storage.AppendableV2
	// Mode is ShardSpread unless given. It must be the same on all nodes.
	Mode ShardMode
	// Scrape is what Prometheus's flags and features set. Its DiscoveryReloadInterval is the least time between two
	// updates by discovery (default 5 s); metadata is always appended.
	Scrape scrape.Options
	// SDMetrics are the metrics of the service discoveries, which other discovery managers share.
	SDMetrics  *discovery.SDMetrics
	Features   features.Collector // may be nil
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Scraper scrapes this node's share of the targets: between Prometheus's discovery manager, which finds the same targets
// on all nodes, and its scrape manager stands a filter that lets through what this node owns. Its methods are
// goroutine-safe.
type Scraper struct {
	cluster   Cluster
	logger    *slog.Logger
	mode      ShardMode
	pause     time.Duration // between updates by discovery
	discovery *discovery.Manager
	manager   *scrape.Manager
	out       chan map[string][]*targetgroup.Group // to the scrape manager; the newest alone counts

	targets prometheus.Gauge
	moves   *prometheus.CounterVec

	ctx     context.Context
	cancel  context.CancelFunc
	cut     context.CancelFunc // of commits that wait
	running sync.WaitGroup
	leading atomic.Bool
	wake    chan struct{} // the share may have changed, or the configuration
	leave   chan struct{} // closed by Stop
	left    sync.Once

	mu      sync.Mutex // protects configs
	configs map[string]*config.ScrapeConfig
}

// NewScraper makes a Scraper that scrapes nothing before Start and ApplyConfig.
func NewScraper(o ScraperOptions) (*Scraper, error) {
	s := &Scraper{
		cluster: o.Cluster, logger: o.Logger, mode: o.Mode, pause: time.Duration(o.Scrape.DiscoveryReloadInterval),
		out: make(chan map[string][]*targetgroup.Group, 1), wake: make(chan struct{}, 1), leave: make(chan struct{}),
	}
	if s.pause <= 0 {
		s.pause = 5 * time.Second
	}
	if s.mode == "" {
		s.mode = ShardSpread
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	named := []func(*discovery.Manager){discovery.Name("scrape")}
	if o.Features != nil {
		named = append(named, discovery.FeatureRegistry(o.Features))
	}
	s.discovery = discovery.NewManager(s.ctx, o.Logger.With("component", "discovery manager scrape"), o.Registerer, o.SDMetrics, named...)
	if s.discovery == nil {
		return nil, errors.New("discovery manager was not made; the log says why")
	}
	options := o.Scrape
	options.DiscoveryReloadInterval = managerReload
	options.AppendMetadata = true // /api/v1/metadata comes from the replicated state
	options.FeatureRegistry = o.Features
	if err := shareSlots(&options); err != nil {
		return nil, err
	}
	var err error
	to := cutAppendable{AppendableV2: o.Appendable}
	to.ctx, s.cut = context.WithCancel(context.Background())
	s.manager, err = scrape.NewManager(&options, o.Logger.With("component", "scrape manager"), logging.NewJSONFileLogger, nil, to, o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("scrape manager: %w", err)
	}
	s.targets = promauto.With(o.Registerer).NewGauge(prometheus.GaugeOpts{
		Name: "deucalion_scrape_targets",
		Help: "Targets that this node scrapes.",
	})
	s.moves = promauto.With(o.Registerer).NewCounterVec(prometheus.CounterOpts{
		Name: "deucalion_scrape_shard_moves_total",
		Help: "Targets that came to this node from others, or went to them, because the nodes that scrape had changed.",
	}, []string{"direction"})
	s.moves.WithLabelValues("in")
	s.moves.WithLabelValues("out")
	return s, nil
}

// Manager is Prometheus's, for what it shows of the targets of this node.
func (s *Scraper) Manager() *scrape.Manager { return s.manager }

// ApplyConfig puts a configuration in force. It waits for the scrapes that it ends, each of which may take its timeout.
func (s *Scraper) ApplyConfig(cfg *config.Config) error {
	jobs, err := cfg.GetScrapeConfigs()
	if err != nil {
		return err
	}
	found := make(map[string]discovery.Configs, len(jobs))
	configs := make(map[string]*config.ScrapeConfig, len(jobs))
	for _, job := range jobs {
		found[job.JobName] = job.ServiceDiscoveryConfigs
		configs[job.JobName] = job
	}
	// First the scrape manager, which must know a job before its targets.
	err = s.manager.ApplyConfig(cfg)
	s.mu.Lock()
	s.configs = configs
	s.mu.Unlock()
	s.nudge()
	return errors.Join(err, s.discovery.ApplyConfig(found))
}

// Start begins to discover and to scrape.
func (s *Scraper) Start() {
	s.running.Go(func() { _ = s.discovery.Run() }) // ends with the context's error
	s.running.Go(func() { _ = s.manager.Run(s.out) })
	s.running.Go(s.spread)
	if s.mode == ShardLeader {
		s.cluster.RunDuty(s.lead)
		return
	}
	s.running.Go(s.takePart)
}

func (s *Scraper) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
