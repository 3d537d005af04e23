// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

const (
	// failoverTime is the longest time without a leader that rules go on after as if nothing had been.
	failoverTime = time.Minute
	// clockSkew is how far the clock of the last leader may have been ahead.
	clockSkew = time.Minute
	// readers bounds how many groups are read at once.
	readers = 8

	alertsName     = "ALERTS"
	alertsForState = "ALERTS_FOR_STATE"
	alertState     = "alertstate"
	firingState    = "firing"
)

// record is what the last leader's evaluations of a group have left in the storage.
type record struct {
	group    *rules.Group // of this term
	interval time.Duration
	last     time.Time // newest slot of the group that something was recorded in, if that is recent; zero: unknown
	newest   time.Time // like last, but slot or not: with other paths of the rule files the slots differ
	rules    []ruleRecord
	begun    bool // what came due before the first evaluation of this term has been made up for
}

// ruleRecord is that of one rule.
type ruleRecord struct {
	selectors [][]*labels.Matcher
	series    []labels.Labels // that have not ended, as far as is known
	alerts    []alertRecord   // newest first
}

// readRecords reads them for all groups of the configuration, by the key of the group.
func (t *term) readRecords(ctx context.Context) (map[string]*record, error) {
	global := t.plan.conf.GlobalConfig
	groups, errs := t.rules.LoadGroups(time.Duration(global.EvaluationInterval), global.ExternalLabels, t.plan.external.String(), nil, false, t.plan.files...)
	if len(errs) > 0 {
		return nil, fmt.Errorf("load rule groups: %w", errors.Join(errs...))
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := make(map[string]*record, len(groups))
	slots := make(chan struct{}, readers)
	for key, g := range groups {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			rec, err := t.readRecord(ctx, g)
			if err != nil && ctx.Err() == nil {
				t.ruler.metrics.failures.Inc()
				t.logger.Error("Rule group begins anew", "group", g.Name(), "file", g.File(), "err", err)
			}
			mu.Lock()
			defer mu.Unlock()
			out[key] = rec
		})
	}
	wg.Wait()
	return out, ctx.Err()
}

// readRecord returns nil when nothing was recorded.
func (t *term) readRecord(ctx context.Context, g *rules.Group) (*record, error) {
	now := time.Now()
	back := max(t.ruler.opts.OutageTolerance, failoverTime) + 2*g.Interval() + g.QueryOffset()
	q, err := t.ruler.opts.Queryable.Querier(timestamp.FromTime(now.Add(-back)), timestamp.FromTime(now.Add(clockSkew)))
	if err != nil {
		return nil, err
	}
	defer q.Close()
	rec := &record{interval: g.Interval(), rules: make([]ruleRecord, len(g.Rules()))}
	points := make([][]point, len(g.Rules()))
	for i, rule := range g.Rules() {
		rec.rules[i].selectors = selectors(rule)
		for _, s := range rec.rules[i].selectors {
			found, err := newestPoints(ctx, q, s)
			if err != nil {
				return nil, err
			}
			points[i] = append(points[i], found...)
		}
	}
	rec.fill(g, points, now)
	if rec.newest.IsZero() {
		return nil, nil
	}
	return rec, nil
}

// fill takes in the points of each rule.
func (rec *record) fill(g *rules.Group, points [][]point, now time.Time) {
	recent := now.Add(-g.Interval() - failoverTime)
	for i, rule := range g.Rules() {
		for _, p := range points[i] {
			slot, ok := slotOf(g, p.t)
			if slot.Before(recent) {
				continue
			}
			if slot.After(rec.newest) {
				rec.newest = slot
			}
			if ok && slot.After(rec.last) {
				rec.last = slot
			}
		}
		if ar, ok := rule.(*rules.AlertingRule); ok {
			rec.rules[i].alerts = newAlertRecords(g, ar, points[i])
			if as := rec.rules[i].alerts; len(as) > 0 && as[0].at.After(rec.newest) {
				rec.newest = as[0].at
			}
		}
	}
	// What is older ended while no leader was there to mark it. The last evaluation may not have come to all rules.
	floor := recent
	if before := rec.last.Add(-g.Interval()); !rec.last.IsZero() && before.Before(floor) {
		floor = before
	}
	for i := range rec.rules {
		r := &rec.rules[i]
		r.alerts = slices.DeleteFunc(r.alerts, func(a alertRecord) bool { return a.at.Before(floor) })
		for _, p := range points[i] {
			if slot, ok := slotOf(g, p.t); ok && !p.stale && !slot.Before(floor) {
				r.series = append(r.series, p.labels)
			}
		}
	}
}

// move gives it to the group that a reload has put in the place of the one before. Series of rules that are not there any
// more are left out.
func (rec *record) move(to *rules.Group) {
	from, left := rec.group.Rules(), rec.rules
	rec.group, rec.rules = to, make([]ruleRecord, len(to.Rules()))
	rec.begun = true // nothing came due that the term's begin has not made up for, or the slots are others
	for i, rule := range to.Rules() {
		for k, was := range from {
			// Like rules.Group.CopyState: the first of the same name and labels goes on as the first, and so on.
			if left[k].selectors != nil && was.Name() == rule.Name() && labels.Equal(was.Labels(), rule.Labels()) {
				rec.rules[i], left[k] = left[k], ruleRecord{}
				break
			}
		}
	}
}

// open tells whether there are series that may have ended unmarked.
func (rec *record) open() bool {
	return slices.ContainsFunc(rec.rules, func(r ruleRecord) bool { return len(r.series) > 0 })
}

// selectors find what a rule has recorded. Labels with templates are left out: they are expanded for each alert.
func selectors(rule rules.Rule) [][]*labels.Matcher {
	names := []string{rule.Name()}
	var ms []*labels.Matcher
	if _, ok := rule.(*rules.AlertingRule); ok {
		names = []string{alertsName, alertsForState}
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, labels.AlertName, rule.Name()))
	}
	rule.Labels().Range(func(l labels.Label) {
		if !templated(l.Value) {
			ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
		}
	})
	var out [][]*labels.Matcher
	for _, name := range names {
		out = append(out, append([]*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name)}, ms...))
	}
	return out
}

// point is the newest sample of a series.
type point struct {
	labels labels.Labels
	t      int64
	v      float64
	stale  bool
}

func newestPoints(ctx context.Context, q storage.Querier, ms []*labels.Matcher) ([]point, error) {
	set := q.Select(ctx, false, nil, ms...)
	var out []point
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		it = s.Iterator(it)
		p := point{labels: s.Labels(), t: math.MinInt64}
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			switch kind {
			case chunkenc.ValFloat:
				p.t, p.v = it.At()
			case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
				t, h := it.AtFloatHistogram(nil)
				p.t, p.v = t, h.Sum
			}
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
		if p.t != math.MinInt64 {
			p.stale = value.IsStaleNaN(p.v)
			out = append(out, p)
		}
	}
	return out, set.Err()
}

// slotOf returns the time of the evaluation that wrote a sample at ms. If that is a slot of the group, it has its full
// precision, and ok is true: groups evaluate at multiples of their interval, plus an offset that follows from their name
// and file, so it is the same on all nodes.
func slotOf(g *rules.Group, ms int64) (slot time.Time, ok bool) {
	at := time.UnixMilli(ms).Add(g.QueryOffset()).UTC()
	slot = g.EvalTimestamp(at.Add(time.Millisecond - time.Nanosecond).UnixNano())
	if timestamp.FromTime(slot.Add(-g.QueryOffset())) == ms {
		return slot, true
	}
	return at, false
}

// outageBefore tells whether nothing was evaluated for longer than a change of leader takes. The group with the shortest
// interval tells how long that is: one with a long interval misses nothing in a long outage.
func outageBefore(records map[string]*record, now time.Time) bool {
	var newest time.Time
	shortest := time.Duration(math.MaxInt64)
	for _, rec := range records {
		if rec == nil {
			continue
		}
		shortest = min(shortest, rec.interval)
		if rec.newest.After(newest) {
			newest = rec.newest
		}
	}
	return !newest.IsZero() && now.Sub(newest) > shortest+failoverTime
}
