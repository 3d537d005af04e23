// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/prometheus/rules"
)

// term is what runs while this node leads.
type term struct {
	ruler   *Ruler
	ctx     context.Context // ends with the leadership
	logger  *slog.Logger
	metrics *rules.Metrics
	reg     *termRegisterer
	notify  *termNotifier
	commits *commitFirst
	rules   *rules.Manager
	running sync.WaitGroup

	mu   sync.Mutex // protects the following
	plan *plan
	// resumed is what was recorded of groups that have not been evaluated in this term or have series left to close, by
	// their keys.
	resumed map[string]*record
}

// newTerm starts the managers with p. What it reads before that is bounded by begin.
//
// Rules see all that was recorded before: the duty begins when everything that earlier leaders acknowledged has been
// applied here, and an append of this node returns when it has been applied here. That holds as long as this node leads,
// which is confirmed before each evaluation.
func (r *Ruler) newTerm(ctx, begin context.Context, p *plan) (*term, error) {
	t := &term{
		ruler: r, ctx: ctx, logger: r.logger, plan: p, resumed: map[string]*record{},
		reg:     &termRegisterer{to: r.opts.Registerer},
		commits: &commitFirst{Appendable: r.opts.Appendable, held: map[context.Context]func(){}},
	}
	var err error
	if t.notify, err = r.beginNotify(ctx, p, t.reg); err != nil {
		t.reg.clear()
		return nil, err
	}
	t.metrics = rules.NewGroupMetrics(t.reg)
	t.rules = t.newManager()
	if err := t.start(begin); err != nil {
		t.end()
		return nil, err
	}
	return t, nil
}

func (t *term) newManager() *rules.Manager {
	o := t.ruler.opts
	return rules.NewManager(&rules.ManagerOptions{
		NameValidationScheme: t.plan.conf.GlobalConfig.MetricNameValidationScheme,
		ExternalURL:          t.plan.external,
		QueryFunc:            rules.EngineQueryFunc(o.Engine, o.Source),
		NotifyFunc:           t.send,
		Context:              t.ctx,
		Appendable:           t.commits,
		Queryable:            o.Queryable,
		Logger:               t.logger.With("component", "rule manager"),
		OutageTolerance:      o.OutageTolerance,
		ForGracePeriod:       o.ForGracePeriod,
		ResendDelay:          o.ResendDelay,
		GroupLoader:          t,
		DefaultRuleQueryOffset: func() time.Duration {
			return time.Duration(t.planNow().conf.GlobalConfig.RuleQueryOffset)
		},
		MaxConcurrentEvals:     o.MaxConcurrentEvals,
		ConcurrentEvalsEnabled: o.ConcurrentEvals,
		Metrics:                t.metrics,
		FeatureRegistry:        o.Features,
		Parser:                 o.Parser,
	})
}

// start reads the state that the last leader has left, and lets the groups run from there.
func (t *term) start(ctx context.Context) error {
	defer func() { t.running.Go(t.rules.Run) }() // also after an error: only running groups can be stopped
	records, err := t.readRecords(ctx)
	if err != nil {
		return err
	}
	outage := outageBefore(records, time.Now())
	if !outage {
		// Groups of a first Update restore their alerts as after a restart: they record nothing for two intervals, and
		// forget what is pending for less than the grace period. This is not a restart.
		if err := t.update(nil); err != nil {
			return err
		}
	}
	if err := t.update(t.plan.files); err != nil {
		return err
	}
	if outage {
		t.logger.Info("No rule was evaluated for a while, alerts are restored as after a restart")
		return nil
	}
	var wg sync.WaitGroup
	for _, g := range t.rules.RuleGroups() {
		key := rules.GroupKey(g.File(), g.Name())
		rec := records[key]
		if rec == nil {
			continue
		}
		rec.group = g
		t.resumed[key] = rec
		wg.Go(func() { t.resume(ctx, g, rec) })
	}
	wg.Wait()
	return ctx.Err()
}

// apply puts another configuration in force.
func (t *term) apply(p *plan) error {
	if err := t.notify.manager.ApplyConfig(p.conf); err != nil {
		return fmt.Errorf("notifier: %w", err)
	}
	t.mu.Lock()
	old := t.plan
	t.plan = p
	t.mu.Unlock()
	if err := t.update(p.files); err != nil {
		t.mu.Lock()
		t.plan = old
		t.mu.Unlock()
		return errors.Join(err, t.notify.manager.ApplyConfig(old.conf))
	}
	return nil
}

func (t *term) update(files []string) error {
	p := t.planNow()
	global := p.conf.GlobalConfig
	return t.rules.Update(time.Duration(global.EvaluationInterval), files, global.ExternalLabels, p.external.String(), t.evaluate)
}

func (t *term) planNow() *plan {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.plan
}

// evaluate is one evaluation of a group.
func (t *term) evaluate(ctx context.Context, g *rules.Group, ts time.Time) {
	// A leader that is cut off takes itself for one for a moment more.
	bounded, cancel := context.WithTimeout(ctx, g.Interval())
	err := t.ruler.confirm(bounded)
	cancel()
	if err != nil {
		t.ruler.metrics.unconfirmed.Inc()
		t.logger.Warn("Rule group not evaluated", "group", g.Name(), "file", g.File(), "err", err)
		return
	}
	key := rules.GroupKey(g.File(), g.Name())
	t.mu.Lock()
	rec := t.resumed[key]
	t.mu.Unlock()
	if rec == nil {
		rules.DefaultEvalIterationFunc(ctx, g, ts)
		return
	}
	if rec.group != g {
		rec.move(g)
	}
	if !rec.begun {
		rec.begun = true
		t.catchUp(ctx, g, rec, ts.Add(-time.Nanosecond))
	}
	if !rec.last.Before(ts) {
		return // the last leader's clock was ahead, and it has evaluated this slot
	}
	t.evaluateResumed(ctx, g, rec, ts)
	if !rec.open() {
		t.mu.Lock()
		delete(t.resumed, key)
		t.mu.Unlock()
	}
}

// send implements rules.NotifyFunc. What is queued is sent only if this node still leads then. An end is queued at once:
// the next leader would tell it again.
func (t *term) send(ctx context.Context, expr string, alerts ...*rules.Alert) {
	var firing, ended []*rules.Alert
	for _, a := range alerts {
		// An evaluation that was made up for would send what its Alertmanager takes for resolved: the end is counted from
		// the slot. These are copies.
		a.ValidUntil = a.ValidUntil.Add(time.Since(a.LastSentAt))
		if a.ResolvedAt.IsZero() {
			firing = append(firing, a)
		} else {
			ended = append(ended, a)
		}
	}
	queue := func(alerts []*rules.Alert) {
		if len(alerts) > 0 && t.ctx.Err() == nil {
			rules.SendAlerts(t.notify.manager, t.planNow().external.String())(ctx, expr, alerts...)
		}
	}
	queue(ended)
	if len(firing) > 0 {
		t.commits.hold(ctx, func() { queue(firing) })
	}
}

// end stops everything and waits for it.
func (t *term) end() {
	t.rules.Stop()
	t.running.Wait()
	t.notify.end(t.ctx)
	t.reg.clear()
}
