// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
)

// resume lets a group go on where the last leader has stopped: its alerts as they were, and then the evaluations that
// are due. It returns before the group runs by itself.
func (t *term) resume(ctx context.Context, g *rules.Group, rec *record) {
	start := time.Now()
	for i, rule := range g.Rules() {
		ar, ok := rule.(*rules.AlertingRule)
		if !ok {
			continue
		}
		n, err := 0, error(nil)
		for _, alerts := range rec.rules[i].alerts {
			if n, err = t.restoreAlerts(ctx, g, ar, alerts); n > 0 || err != nil {
				break
			}
		}
		t.ruler.metrics.restored.Add(float64(n))
		if err != nil && ctx.Err() == nil {
			t.ruler.metrics.failures.Inc()
			t.logger.Error("Alerts of a rule begin anew", "alertname", ar.Name(), "group", g.Name(), "file", g.File(), "err", err)
		}
	}
	t.metrics.GroupLastRestoreDuration.WithLabelValues(rules.GroupKey(g.File(), g.Name())).Set(time.Since(start).Seconds())
	if t.ruler.confirm(ctx) == nil {
		t.catchUp(ctx, g, rec, time.Now())
	}
}

// catchUp evaluates the slots up to until that the change of leader has delayed: queries are of the time of the slot, so
// nothing but the moment is different.
func (t *term) catchUp(ctx context.Context, g *rules.Group, rec *record, until time.Time) {
	if rec.last.IsZero() {
		return
	}
	slot := rec.last.Add(rec.interval)
	if floor := until.Add(-rec.interval - failoverTime); slot.Before(floor) {
		slot = g.EvalTimestamp(floor.UnixNano()).Add(rec.interval)
	}
	for ; !slot.After(until) && ctx.Err() == nil; slot = slot.Add(rec.interval) {
		t.ruler.metrics.late.Inc()
		t.evaluateResumed(ctx, g, rec, slot)
	}
}

func (t *term) evaluateResumed(ctx context.Context, g *rules.Group, rec *record, ts time.Time) {
	ctx = promql.NewOriginContext(ctx, map[string]any{"ruleGroup": map[string]string{"file": g.File(), "name": g.Name()}})
	start := time.Now()
	rules.DefaultEvalIterationFunc(ctx, g, ts)
	if err := t.closeSeries(ctx, g, rec, ts, start); err != nil && ctx.Err() == nil {
		t.ruler.metrics.failures.Inc()
		t.logger.Error("Series that ended with the last leader have no stale markers yet", "group", g.Name(), "file", g.File(), "err", err)
	}
	rec.last = ts
}

// closeSeries writes stale markers to the series that the last leader's evaluations had and the one at ts, which began at
// start, has not. A group knows only the series of its own evaluations. Those of rules that failed, or that a stop came
// before, stay for the next time.
func (t *term) closeSeries(ctx context.Context, g *rules.Group, rec *record, ts, start time.Time) error {
	unknown := map[string]bool{} // by name: rules of the same name have their series together
	for _, rule := range g.Rules() {
		if rule.Health() != rules.HealthGood || rule.GetEvaluationTimestamp().Before(start) {
			unknown[rule.Name()] = true
		}
	}
	var ready []*ruleRecord
	for i, rule := range g.Rules() {
		if r := &rec.rules[i]; len(r.series) > 0 && !unknown[rule.Name()] {
			ready = append(ready, r)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	last, now := timestamp.FromTime(rec.last.Add(-g.QueryOffset())), timestamp.FromTime(ts.Add(-g.QueryOffset()))
	q, err := t.ruler.opts.Queryable.Querier(last+1, math.MaxInt64)
	if err != nil {
		return err
	}
	defer q.Close()
	app := t.ruler.opts.Appendable.Appender(ctx)
	for _, r := range ready {
		goesOn := map[string]bool{}
		for _, s := range r.selectors {
			points, err := newestPoints(ctx, q, s)
			if err != nil {
				_ = app.Rollback()
				return err
			}
			for _, p := range points {
				goesOn[p.labels.String()] = true
			}
		}
		for _, ls := range r.series {
			if !goesOn[ls.String()] {
				// Refused only when there is a newer sample, and then the series has not ended.
				_, _ = app.Append(0, ls, now, math.Float64frombits(value.StaleNaN))
			}
		}
	}
	if err := app.Commit(); err != nil {
		return err
	}
	for _, r := range ready {
		r.series = nil
	}
	return nil
}
