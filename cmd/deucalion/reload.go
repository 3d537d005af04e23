// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/notifications"
)

// reloader keeps the configuration in force and brings a new one to all who live by it.
type reloader struct {
	opts    *options
	parse   parser.Parser
	notices *notifications.Notifications
	logger  *slog.Logger

	current atomic.Pointer[configuration]
	status  atomic.Pointer[reloadStatus]
	loaded  prometheus.Gauge
	at      prometheus.Gauge
	hash    *prometheus.GaugeVec

	mu    sync.Mutex // protects the following and is held over a reload
	parts []part
	sum   string // checksum of what was last applied without an error
}

// reloadStatus tells of the newest reload.
type reloadStatus struct {
	ok bool
	at time.Time // of the last that succeeded
}

// part is something that a new configuration is applied to. Parts keep what they have when they return an error.
type part struct {
	name  string
	apply func(*config.Config) error
}

func newReloader(o *options, parse parser.Parser, first *configuration, notices *notifications.Notifications, logger *slog.Logger, reg prometheus.Registerer) *reloader {
	f := promauto.With(reg)
	r := &reloader{
		opts: o, parse: parse, notices: notices, logger: logger,
		loaded: f.NewGauge(prometheus.GaugeOpts{
			Name: "prometheus_config_last_reload_successful",
			Help: "Whether the last configuration reload attempt was successful.",
		}),
		at: f.NewGauge(prometheus.GaugeOpts{
			Name: "prometheus_config_last_reload_success_timestamp_seconds",
			Help: "Timestamp of the last successful configuration reload.",
		}),
		hash: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "deucalion_config_hash_info",
			Help: "Hash of the configuration in force and of the files that it names; all nodes should have the same.",
		}, []string{"hash"}),
	}
	r.current.Store(first)
	r.status.Store(&reloadStatus{ok: true, at: time.Now().UTC()})
	return r
}

// last tells whether the newest reload succeeded, and when one last did.
func (r *reloader) last() (ok bool, at time.Time) {
	s := r.status.Load()
	return s.ok, s.at
}

// config is the configuration in force.
func (r *reloader) config() *configuration { return r.current.Load() }

// showHash tells the hash of the configuration in force in a metric and to the other nodes, also when a part has refused
// it: the rest lives by it.
func (r *reloader) showHash(others func(hash string)) {
	hash := r.config().hash
	r.hash.Reset()
	r.hash.WithLabelValues(hash).Set(1)
	others(hash)
}

// add makes apply part of every reload, and of first. Parts are applied in the order in which they were added.
func (r *reloader) add(name string, apply func(*config.Config) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parts = append(r.parts, part{name, apply})
}

// first applies the configuration that the process was started with.
func (r *reloader) first() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applyLocked(r.current.Load())
}

// reload reads the file again. On an error before anything is applied the old configuration stays in force as a whole;
// a part that refuses the new one keeps its old, as in Prometheus.
func (r *reloader) reload() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reloadLocked()
}

func (r *reloader) reloadLocked() (err error) {
	r.logger.Info("Loading configuration file", "filename", r.opts.configFile)
	defer func() {
		if err == nil {
			r.notices.DeleteNotification(notifications.ConfigurationUnsuccessful)
			return
		}
		r.loaded.Set(0)
		r.status.Store(&reloadStatus{at: r.status.Load().at})
		r.notices.AddNotification(notifications.ConfigurationUnsuccessful)
		r.logger.Error("Error reloading config", "err", err)
	}()
	c, err := loadConfig(r.opts, r.parse, r.logger)
	if err != nil {
		return fmt.Errorf("couldn't load configuration (--config.file=%q): %w", r.opts.configFile, err)
	}
	return r.applyLocked(c)
}

func (r *reloader) applyLocked(c *configuration) error {
	start := time.Now()
	r.current.Store(c) // parts that ask for the configuration get the new one
	var errs []error
	for _, p := range r.parts {
		if err := p.apply(c.file); err != nil {
			r.logger.Error("Failed to apply configuration", "part", p.name, "err", err)
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("one or more errors occurred while applying the new configuration (--config.file=%q): %w", r.opts.configFile, err)
	}
	r.loaded.Set(1)
	r.status.Store(&reloadStatus{ok: true, at: time.Now().UTC()})
	r.at.SetToCurrentTime()
	r.sum = c.sum
	r.logger.Info("Completed loading of configuration file", "filename", r.opts.configFile, "hash", c.hash, "duration", time.Since(start))
	return nil
}

// watch reloads when a file has changed, until ctx ends.
func (r *reloader) watch(ctx context.Context) {
	if !r.opts.autoReload {
		return
	}
	interval := max(time.Duration(r.opts.autoReloadInterval), time.Second)
	r.logger.Info("Automatic configuration file reloading enabled", "interval", interval)
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		r.reloadIfChanged()
	}
}

// reloadIfChanged reloads if the files are not those in force. Those that do not load are tried again each time.
func (r *reloader) reloadIfChanged() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.opts.checksum(r.logger); now == "" || now == r.sum {
		return
	}
	r.logger.Info("Configuration file change detected, reloading the configuration")
	_ = r.reloadLocked() // it has logged the error
}

// watchConfig reloads on SIGHUP and when the files have changed. A stop ends it at once, and waits last for a reload that
// is under way: what that waits for, an evaluation, say, is cut short by the rest of the stop.
func (n *node) watchConfig(hangups <-chan os.Signal) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.config.watch(ctx) })
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				_ = n.config.reload() // it has logged the error
			}
		}
	})
	n.onStop(0, func(context.Context) error {
		cancel()
		return nil
	})
	n.closers = append(n.closers, func() error { return awaitReload(&wg, reloadTimeout) })
}

// awaitReload waits for wg, for as long as within.
func awaitReload(wg *sync.WaitGroup, within time.Duration) error {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(within):
		return fmt.Errorf("a reload of the configuration goes on after %s", within)
	}
}
