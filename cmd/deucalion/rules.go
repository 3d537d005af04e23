// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/features"

	"github.com/deucaliondb/deucalion/monitor"
)

// startRules evaluates the rules of the configuration, and notifies its Alertmanagers, whenever this node leads.
func (n *node) startRules(o *options, engine promql.QueryEngine, parse parser.Parser, known features.Collector, external *url.URL) (*monitor.Ruler, error) {
	m := o.monitoring
	r, err := monitor.NewRuler(monitor.RulerOptions{
		Cluster:            n.cluster,
		Appendable:         n.appender,
		Queryable:          n.fsm,
		Source:             n.reader,
		Engine:             engine,
		Parser:             parse,
		OutageTolerance:    time.Duration(m.outageTolerance),
		ForGracePeriod:     time.Duration(m.forGracePeriod),
		ResendDelay:        time.Duration(m.resendDelay),
		ConcurrentEvals:    o.features.has("concurrent-rule-eval"),
		MaxConcurrentEvals: m.concurrentEvals,
		QueueCapacity:      m.queueCapacity,
		MaxBatchSize:       m.batchSize,
		Drain:              m.drain,
		SDMetrics:          n.discoveries,
		Features:           known,
		Logger:             n.logger,
		Registerer:         n.registry,
	})
	if err != nil {
		return nil, fmt.Errorf("start rules: %w", err)
	}
	n.config.add("rules", func(c *config.Config) error { return r.ApplyConfig(c, external) })
	n.onStop(rulesTimeout, func(ctx context.Context) error {
		r.Stop(ctx)
		return nil
	})
	return r, nil
}
