// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/monitor"
	"github.com/deucaliondb/deucalion/storage"
)

// node is everything that runs in this process.
type node struct {
	logger    *slog.Logger
	registry  *prometheus.Registry
	fatal     chan error // why the process must exit at once
	served    chan error // why HTTP is no longer served
	snapshots *cluster.SnapshotStore
	fsm       *fsm.FSM
	cluster   *cluster.Node
	appender  *monitor.Appendable
	scraper   *monitor.Scraper
	reader    *monitor.RemoteReader // this node's state and the remote_read stores
	config    *reloader
	notices   *notifications.Notifications // what /api/v1/notifications shows
	server    *server
	quit      chan struct{} // closed when a request asks for the end

	discoveries *discovery.SDMetrics // of all discovery managers

	stoppers []stopper // run last to first, before HTTP is drained

	closers []func() error // run last to first, when everything else has stopped
}

// startNode puts the parts together, from the disk up. It returns when HTTP is being served; the node may still be
// catching up, which /-/ready tells.
func startNode(o *options, conf *configuration, logger *slog.Logger) (_ *node, err error) {
	n := &node{logger: logger, fatal: make(chan error, 1), served: make(chan error, 1), registry: newRegistry(), quit: make(chan struct{})}
	parse := o.features.parser()
	n.notices = notifications.NewNotifications(o.web.maxNotifications, n.registry)
	n.notices.AddNotification(startingUp)
	n.config = newReloader(o, parse, conf, n.notices, logger, n.registry)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.stop())
		}
	}()
	if err := n.openState(o); err != nil {
		return nil, err
	}
	// The port is taken before the cluster sees this node: a wrong flag should not make it come and go.
	if n.server, err = listen(o.listen, o.maxConnections, o.web.configFile, logger); err != nil {
		return nil, err
	}
	if err := n.startCluster(o); err != nil {
		return nil, err
	}
	n.appender = monitor.NewAppendable(monitor.AppendableOptions{
		FSM: n.fsm, Proposer: n.cluster, Clock: n.cluster, Registerer: n.registry,
		ZeroSamples: o.features.has("created-timestamp-zero-ingestion"),
	})
	n.startRemoteRead()
	handler, err := n.newHandler(o, parse)
	if err != nil {
		return nil, err
	}
	// After rules and scraping, so that it ends before them: it may wait for a remote store, and they must not wait for
	// their next node meanwhile.
	if err := n.startShipping(o); err != nil {
		return nil, err
	}
	n.config.add("runtime", func(*config.Config) error { return n.config.config().applyRuntime(o) })
	n.config.add("hash", func(*config.Config) error {
		n.config.showHash(func(hash string) { n.cluster.SetAttribute(cluster.AttributeConfigHash, hash) })
		return nil
	})
	n.startTracing()
	if err := n.config.first(); err != nil {
		return nil, err
	}
	n.awaitStart()
	n.server.start(handler, time.Duration(o.readTimeout), n.served)
	return n, nil
}

// openState takes the data directory and opens the state machine from its newest snapshot.
func (n *node) openState(o *options) error {
	lock, err := lockDataDir(o.dataDir)
	if err != nil {
		return err
	}
	n.closers = append(n.closers, lock.Release)
	if n.snapshots, err = cluster.OpenSnapshots(o.dataDir, n.logger); err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	n.fsm, err = fsm.Open(fsm.Options{
		Dir: o.dataDir, Logger: n.logger.With("component", "fsm"), Registerer: n.registry,
		Storage: storage.Options{ScrubInterval: time.Duration(o.scrubInterval), FreezeSamples: o.tuning.freezeSamples},
	}, "")
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.fsm.Close)
	return n.snapshots.Restore(n.fsm)
}

func (n *node) startCluster(o *options) error {
	address, err := httpAddress(n.server.address(), o.clusterAddr)
	if err != nil {
		return err
	}
	n.cluster, err = cluster.Start(cluster.Config{
		Dir:                    o.dataDir,
		NodeID:                 o.nodeID,
		ListenAddress:          o.clusterListen,
		AdvertiseAddress:       o.clusterAddr,
		GossipListenAddress:    o.gossipListen,
		GossipAdvertiseAddress: o.gossipAddr,
		Peers:                  o.peers,
		BootstrapExpect:        o.bootstrapExpect,
		HTTPAddress:            address,
		Version:                version.Version,
		LogStore:               o.logStore,
		LogSegmentBytes:        int(o.tuning.logSegmentBytes),
		SnapshotEntries:        o.tuning.snapshotEntries,
		SnapshotLogBytes:       int64(o.tuning.snapshotLogBytes),
		TrailingLogBytes:       int64(o.tuning.trailingLogBytes),
		SnapshotMaxRate:        int64(o.snapshotMaxRate),
		UnshippedLogBytes:      int64(o.unshippedLogBytes),
		MaxStaleness:           time.Duration(o.maxStaleness),
		Settings:               func() fsm.Settings { return n.config.config().settings() },
		Retention: func() (time.Duration, int64) {
			keep := n.config.config().retention(o.dataDir)
			return keep.time, keep.size
		},
		MinFree:        o.roomToLeave(),
		DigestInterval: o.digestEvery(),
		Logger:         n.logger.With("component", "cluster"),
		Registerer:     n.registry,
		OnFatal:        n.onFatal,
	}, n.fsm, n.snapshots)
	if err != nil {
		return fmt.Errorf("start cluster: %w", err)
	}
	return nil
}

// onFatal never blocks: what calls it may hold locks that stopping needs.
func (n *node) onFatal(err error) {
	select {
	case n.fatal <- err:
	default: // the first reason counts
	}
}

func (n *node) newHandler(o *options, parse parser.Parser) (http.Handler, error) {
	logger := n.logger.With("component", "web")
	external, err := computeExternalURL(o.externalURL, n.server.address().String())
	if err != nil {
		return nil, fmt.Errorf("parse external URL %q: %w", o.externalURL, err)
	}
	origin, err := relabel.NewRegexp(o.corsOrigin)
	if err != nil {
		return nil, fmt.Errorf("could not compile CORS regex string %q: %w", o.corsOrigin, err)
	}
	known := o.featureRegistry()
	engine, err := n.newEngine(o, parse, known)
	if err != nil {
		return nil, err
	}
	if err := n.startScraping(o, known); err != nil {
		return nil, err
	}
	// When rules have ended here, so that what they have to tell is told, and before HTTP is drained, so that they go on
	// elsewhere at once.
	n.onStop(handOverTimeout, func(ctx context.Context) error {
		n.cluster.HandOver(ctx)
		return nil
	})
	ruler, err := n.startRules(o, engine, parse, known, external)
	if err != nil {
		return nil, err
	}
	cfg := api.Config{
		FSM: n.fsm, Source: n.reader, Cluster: n.cluster, Engine: engine, Parser: parse,
		Scraping:         n.scraper.Manager(),
		PrometheusConfig: func() config.Config { return *n.config.config().file },
		Flags:            o.shown,
		BuildInfo:        buildInfo(),
		Features:         known,
		ListenAddress:    o.listen[0],
		ExternalURL:      external,
		CORSOrigin:       origin.Regexp,
		EnableAdmin:      o.enableAdmin,
		Consistency:      api.Level(o.consistency),
		MaxStaleness:     time.Duration(o.maxStaleness),
		QueryTimeout:     time.Duration(o.queryTimeout),
		Retention:        func() string { return n.config.config().retention(o.dataDir).String() },
		LastReload:       n.config.last,
		AcceptMessages:   o.acceptedMessage,
		RemoteRead:       o.remoteRead,
		Ruler:            ruler,
		Logger:           logger,
		Registerer:       n.registry,
		Gatherer:         n.registry,
	}
	n.serveWeb(o, &cfg)
	served, err := api.New(cfg)
	if err != nil {
		return nil, err
	}
	return served.Handler(), nil
}

// newEngine makes the PromQL engine with Prometheus's settings. Its tracker bounds the concurrency, and logs after a
// crash which queries were running.
func (n *node) newEngine(o *options, parse parser.Parser, known features.Collector) (*promql.Engine, error) {
	logger := n.logger.With("component", "query engine")
	tracker, err := promql.NewActiveQueryTracker(o.dataDir, o.maxConcurrency, logger)
	if err != nil {
		return nil, err
	}
	engine := promql.NewEngine(promql.EngineOpts{
		Logger:             logger,
		Reg:                n.registry,
		MaxSamples:         o.maxSamples,
		Timeout:            time.Duration(o.queryTimeout),
		ActiveQueryTracker: tracker,
		LookbackDelta:      time.Duration(o.lookback),
		NoStepSubqueryIntervalFn: func(int64) int64 {
			return time.Duration(n.config.config().file.GlobalConfig.EvaluationInterval).Milliseconds()
		},
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		EnablePerStepStats:       o.features.has("promql-per-step-stats"),
		EnableDelayedNameRemoval: o.features.has("promql-delayed-name-removal"),
		EnableTypeAndUnitLabels:  o.features.has("type-and-unit-labels"),
		FeatureRegistry:          known,
		Parser:                   parse,
	})
	n.closers = append(n.closers, engine.Close) // and the tracker with it
	n.config.add("query_engine", func(c *config.Config) error { return setQueryLog(engine, c.GlobalConfig.QueryLogFile) })
	return engine, nil
}
