// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type rulerMetrics struct {
	unconfirmed prometheus.Counter
	late        prometheus.Counter
	restored    prometheus.Counter
	failures    prometheus.Counter
}

func newRulerMetrics(reg prometheus.Registerer, evaluates func() bool) *rulerMetrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "deucalion_rules_evaluating",
		Help: "1 on the node that evaluates rules and notifies Alertmanagers.",
	}, func() float64 {
		if evaluates() {
			return 1
		}
		return 0
	})
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &rulerMetrics{
		unconfirmed: counter("deucalion_rules_unconfirmed_evaluations_total", "Evaluations of rule groups left out because no majority confirmed the leadership of this node."),
		late:        counter("deucalion_rules_late_evaluations_total", "Evaluations of rule groups that a change of leader had delayed and that this node has made up for."),
		restored:    counter("deucalion_rules_restored_alerts_total", "Alerts that this node took over from the leader before it."),
		failures:    counter("deucalion_rules_takeover_failures_total", "Rule groups whose state could not be taken over from the leader before, and terms without rules for another error."),
	}
}

// termRegisterer takes the metrics of managers that live for one term. On the nodes that do not lead they are absent:
// the time of the last evaluation, say, must not look as if it had stood still.
type termRegisterer struct {
	to prometheus.Registerer

	mu   sync.Mutex // protects the following
	mine []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (r *termRegisterer) Register(c prometheus.Collector) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.to.Register(c); err != nil {
		return err
	}
	r.mine = append(r.mine, c)
	return nil
}

// MustRegister implements prometheus.Registerer.
func (r *termRegisterer) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// Unregister implements prometheus.Registerer.
func (r *termRegisterer) Unregister(c prometheus.Collector) bool { return r.to.Unregister(c) }

// clear takes everything back.
func (r *termRegisterer) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.mine {
		r.to.Unregister(c)
	}
	r.mine = nil
}
