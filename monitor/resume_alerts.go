// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
)

// alertRecord are the alerts of a rule after an evaluation that is recorded.
type alertRecord struct {
	at     time.Time
	alerts map[string]*recordedAlert // by the text of the labels
}

// recordedAlert is what ALERTS_FOR_STATE and ALERTS tell of an alert, and from sample on what restoreAlerts finds out.
type recordedAlert struct {
	activeAt time.Time
	firing   bool

	sample promql.Sample // of the newest evaluation of the expression that had it
	held   time.Time     // the time of that evaluation; zero: not found
}

// newAlertRecords returns that of the newest slot and that of the slot before it, as far as there are alerts. Another rule of
// the same name may have made them: one of another group has other slots, and one before rule in its group was perhaps
// evaluated once more.
func newAlertRecords(g *rules.Group, rule *rules.AlertingRule, points []point) []alertRecord {
	var newest time.Time
	slots := false
	for _, p := range points {
		if p.stale || p.labels.Get(model.MetricNameLabel) != alertsForState {
			continue
		}
		if at, ok := slotOf(g, p.t); ok && !slots || ok == slots && at.After(newest) {
			newest, slots = at, ok
		}
	}
	var out []alertRecord
	for _, at := range []time.Time{newest, newest.Add(-g.Interval())} {
		if r := newAlertRecord(g, rule, points, at); len(r.alerts) > 0 {
			out = append(out, r)
		}
	}
	return out
}

func newAlertRecord(g *rules.Group, rule *rules.AlertingRule, points []point, at time.Time) alertRecord {
	r := alertRecord{at: at, alerts: map[string]*recordedAlert{}}
	firing := map[string]bool{}
	for _, p := range points {
		if slot, _ := slotOf(g, p.t); p.stale || !slot.Equal(at) {
			continue
		}
		key := alertKey(rule, p.labels)
		if p.labels.Get(model.MetricNameLabel) == alertsForState {
			r.alerts[key] = &recordedAlert{activeAt: activeSince(g, int64(p.v))}
		} else if p.labels.Get(alertState) == firingState {
			firing[key] = true
		}
	}
	for key, a := range r.alerts {
		a.firing = firing[key]
	}
	return r
}

// alertKey is the text of the labels of the alert that a series is about. A label whose template expanded to nothing is
// in the series with the text of the template.
func alertKey(rule *rules.AlertingRule, series labels.Labels) string {
	b := labels.NewBuilder(series).Del(model.MetricNameLabel, alertState)
	rule.Labels().Range(func(l labels.Label) {
		if templated(l.Value) && series.Get(l.Name) == l.Value {
			b.Del(l.Name)
		}
	})
	return b.Labels().String()
}

func templated(s string) bool { return strings.Contains(s, "{{") }

// activeSince gives the value of ALERTS_FOR_STATE, whole seconds, the precision of the evaluation that it came from.
func activeSince(g *rules.Group, seconds int64) time.Time {
	at := time.Unix(seconds, 0).UTC()
	if slot := g.EvalTimestamp(at.Add(time.Second - time.Nanosecond).UnixNano()); slot.Unix() == seconds {
		return slot
	}
	return at
}

// firedAt is when an alert fired that is active since a: at the first evaluation after the hold duration.
func (r alertRecord) firedAt(g *rules.Group, rule *rules.AlertingRule, a *recordedAlert) time.Time {
	due := a.activeAt.Add(rule.HoldDuration())
	at := g.EvalTimestamp(due.UnixNano())
	if at.Before(due) {
		at = at.Add(g.Interval())
	}
	if at.After(r.at) {
		return r.at
	}
	return at
}

// restoreAlerts puts the recorded alerts back into rule and returns how many. Alerts can be put in only by an evaluation,
// so the rule evaluates the samples that its expression gave when each of the alerts held for the last time; then the
// alerts get their times. When an alert held for the last time is not recorded: it is found by evaluating the expression
// at earlier slots, as far back as keep_firing_for needs it, and an interval more, for a scrape may have been stored
// after the evaluation whose time it is of. What the rule did not give then is another rule's alert of the same name.
func (t *term) restoreAlerts(ctx context.Context, g *rules.Group, rule *rules.AlertingRule, rec alertRecord) (int, error) {
	s := seeder{term: t, group: g, rule: rule, query: rules.EngineQueryFunc(t.ruler.opts.Engine, t.ruler.opts.Source), plan: t.planNow()}
	var found promql.Vector
	missing := len(rec.alerts)
	depth := g.Interval()
	if keep := rule.KeepFiringFor(); keep > 0 {
		depth = keep + 2*g.Interval()
	}
	for slot := rec.at; missing > 0 && !slot.Before(rec.at.Add(-depth)); slot = slot.Add(-g.Interval()) {
		samples, err := s.query(ctx, rule.Query().String(), slot.Add(-g.QueryOffset()))
		if err != nil {
			return 0, err
		}
		for _, sample := range samples {
			key, err := s.key(ctx, sample, slot)
			if err != nil {
				return 0, err
			}
			if a := rec.alerts[key]; a != nil && a.held.IsZero() {
				a.held, a.sample = slot, sample
				found = append(found, sample)
				missing--
			}
		}
	}
	if len(found) == 0 {
		return 0, nil
	}
	if _, err := rule.Eval(ctx, 0, rec.at, s.only(found), s.plan.external, 0); err != nil {
		return 0, err
	}
	n := 0
	rule.ForEachActiveAlert(func(a *rules.Alert) {
		if r := rec.alerts[a.Labels.String()]; r != nil {
			rec.set(g, rule, a, r)
			n++
		}
	})
	rule.SetHealth(rules.HealthGood)
	rule.SetEvaluationTimestamp(rec.at)
	return n, nil
}

// set gives an alert the state that it had. It was not sent in this term: the next evaluation sends it, with the start
// that it had, before the last leader's message runs out.
func (r alertRecord) set(g *rules.Group, rule *rules.AlertingRule, a *rules.Alert, from *recordedAlert) {
	a.State, a.ActiveAt = rules.StatePending, from.activeAt
	a.FiredAt, a.ResolvedAt, a.LastSentAt, a.KeepFiringSince = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	if !from.firing {
		return
	}
	a.State, a.FiredAt = rules.StateFiring, r.firedAt(g, rule, from)
	if from.held.Before(r.at) {
		a.KeepFiringSince = from.held.Add(g.Interval())
	}
}

// seeder evaluates an alerting rule with samples of its choice.
type seeder struct {
	term  *term
	group *rules.Group
	rule  *rules.AlertingRule
	query rules.QueryFunc
	plan  *plan
}

// only answers the rule's expression with v; templates may query other things.
func (s seeder) only(v promql.Vector) rules.QueryFunc {
	expr := s.rule.Query().String()
	return func(ctx context.Context, q string, at time.Time) (promql.Vector, error) {
		if q == expr {
			return v, nil
		}
		return s.query(ctx, q, at)
	}
}

// key is the text of the labels of the alert that sample makes, found by a rule like this one.
func (s seeder) key(ctx context.Context, sample promql.Sample, at time.Time) (string, error) {
	like := rules.NewAlertingRule(s.rule.Name(), s.rule.Query(), 0, 0, s.rule.Labels(), labels.EmptyLabels(),
		s.plan.conf.GlobalConfig.ExternalLabels, s.plan.external.String(), true, s.term.logger)
	if _, err := like.Eval(ctx, 0, at, s.only(promql.Vector{sample}), s.plan.external, 0); err != nil {
		return "", err
	}
	for _, a := range like.ActiveAlerts() {
		return a.Labels.String(), nil
	}
	return "", nil
}
