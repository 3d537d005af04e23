// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"
)

// lead is a cluster that this node leads, in a term that begins when the test says so.
type lead struct{}

func (lead) RunDuty(func(ctx context.Context))         {}
func (lead) ConfirmLeader(context.Context) (err error) { return nil }

// succession is one storage on which a leader evaluates rules at times of the test's choice, and then another begins.
type succession struct {
	*teststorage.TestStorage
	t      *testing.T
	ruler  *Ruler
	file   string
	plan   *plan
	groups map[string]*rules.Group // of the leader before, by name

	mu      sync.Mutex            // protects the following
	commits int                   // since refuse was set
	refuse  func(commit int) bool // may be nil
}

// Appender implements storage.Appendable.
func (s *succession) Appender(ctx context.Context) storage.Appender {
	return countedAppender{s.TestStorage.Appender(ctx), s}
}

type countedAppender struct {
	storage.Appender
	of *succession
}

// Commit implements storage.AppenderTransaction.
func (a countedAppender) Commit() error {
	a.of.mu.Lock()
	a.of.commits++
	refused := a.of.refuse != nil && a.of.refuse(a.of.commits)
	a.of.mu.Unlock()
	if refused {
		return errors.Join(errors.New("the leader is dead"), a.Rollback())
	}
	return a.Appender.Commit()
}

func newSuccession(t *testing.T, content string) *succession {
	s := &succession{TestStorage: teststorage.New(t), t: t, groups: map[string]*rules.Group{}}
	s.file = filepath.Join(t.TempDir(), "rules.yml")
	reg := prometheus.NewRegistry()
	sd, err := discovery.CreateAndRegisterSDMetrics(reg)
	require.NoError(t, err)
	parse := parser.NewParser(parser.Options{})
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: parse})
	s.ruler, err = NewRuler(RulerOptions{
		Cluster: lead{}, Appendable: s, Queryable: s, Source: s, Engine: engine, Parser: parse,
		OutageTolerance: time.Hour, ForGracePeriod: 10 * time.Minute, ResendDelay: time.Minute,
		QueueCapacity: 10, MaxBatchSize: 10, SDMetrics: sd, Logger: slog.New(slog.DiscardHandler), Registerer: reg,
	})
	require.NoError(t, err)
	t.Cleanup(func() { s.ruler.Stop(context.Background()) })
	s.plan = s.load(content)
	s.forget()
	return s
}

// forget puts a leader in the place of the one before that has restored nothing.
func (s *succession) forget() {
	before := rules.NewManager(&rules.ManagerOptions{
		QueryFunc: rules.EngineQueryFunc(s.ruler.opts.Engine, s), NotifyFunc: func(context.Context, string, ...*rules.Alert) {},
		Appendable: s, Queryable: s, Logger: s.ruler.logger, GroupLoader: s.plan, Metrics: rules.NewGroupMetrics(prometheus.NewRegistry()), Parser: s.plan.parser,
	})
	groups, errs := before.LoadGroups(time.Minute, labels.EmptyLabels(), "", nil, false, s.plan.files...)
	require.Empty(s.t, errs)
	for _, g := range groups {
		s.groups[g.Name()] = g
		for _, r := range g.AlertingRules() {
			r.SetRestored(true)
		}
	}
}

// load is a configuration with these rules.
func (s *succession) load(content string) *plan {
	require.NoError(s.t, os.WriteFile(s.file, []byte(content), 0o644))
	conf, err := config.Load("rule_files: ['"+s.file+"']", promslog.NewNopLogger())
	require.NoError(s.t, err)
	p, err := newPlan(conf, &url.URL{}, s.ruler.opts.Parser, s.ruler.logger)
	require.NoError(s.t, err)
	return p
}

// slot is the n-th newest of a group that is due.
func (s *succession) slot(group string, n int) time.Time {
	g := s.groups[group]
	return g.EvalTimestamp(time.Now().UnixNano()).Add(-time.Duration(n) * g.Interval())
}

func (s *succession) write(name string, at time.Time, v float64) {
	app := s.TestStorage.Appender(s.t.Context())
	_, err := app.Append(0, labels.FromStrings(model.MetricNameLabel, name), at.UnixMilli(), v)
	require.NoError(s.t, err)
	require.NoError(s.t, app.Commit())
}

// evaluate lets the leader before evaluate a group at a slot.
func (s *succession) evaluate(group string, at time.Time) {
	s.groups[group].Eval(s.t.Context(), at)
}

// fail lets commits fail that refuse says, counted from 1.
func (s *succession) fail(refuse func(commit int) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits, s.refuse = 0, refuse
}

// next is the next leader's term.
func (s *succession) next() *term {
	s.fail(nil)
	next, err := s.ruler.newTerm(s.t.Context(), s.t.Context(), s.plan)
	require.NoError(s.t, err)
	s.t.Cleanup(next.end)
	return next
}

// since are the starts of the active alerts, by the label of.
func (t *term) since() map[string]time.Time {
	out := map[string]time.Time{}
	for _, r := range t.rules.AlertingRules() {
		for _, a := range r.ActiveAlerts() {
			out[a.Labels.Get("of")] = a.ActiveAt
		}
	}
	return out
}

// ended tells whether the newest sample of a series is a stale marker.
func (s *succession) ended(matchers ...*labels.Matcher) bool {
	q, err := s.Querier(0, 1<<60)
	require.NoError(s.t, err)
	defer q.Close()
	set := q.Select(s.t.Context(), false, nil, matchers...)
	require.True(s.t, set.Next(), "no such series")
	it := set.At().Iterator(nil)
	var v float64
	for it.Next() != 0 {
		_, v = it.At()
	}
	require.False(s.t, set.Next(), "more than one such series")
	return value.IsStaleNaN(v)
}

// Two groups have a rule of the same name, as with a file for each service. Both alerts go on.
func TestResumeSameNameInTwoGroups(t *testing.T) {
	s := newSuccession(t, `
groups:
- name: one
  interval: 1m
  rules:
  - alert: Down
    expr: label_replace(vector(1), "of", "one", "", "")
    for: 1h
- name: two
  interval: 1m
  rules:
  - alert: Down
    expr: label_replace(vector(1), "of", "two", "", "")
    for: 1h
`)
	one, two := s.slot("one", 4), s.slot("two", 4)
	for n := range time.Duration(5) {
		s.evaluate("one", one.Add(n*time.Minute))
		s.evaluate("two", two.Add(n*time.Minute))
	}
	require.Equal(t, map[string]time.Time{"one": one, "two": two}, s.next().since())
}

// The leader dies between two rules of the same name in one group. Both alerts go on.
func TestResumeSameNameHalfEvaluated(t *testing.T) {
	s := newSuccession(t, `
groups:
- name: g
  interval: 1m
  rules:
  - alert: Down
    expr: label_replace(vector(1), "of", "one", "", "")
    for: 1h
  - alert: Down
    expr: label_replace(vector(1), "of", "two", "", "")
    for: 1h
`)
	first, last := s.slot("g", 4), s.slot("g", 0)
	for at := first; at.Before(last); at = at.Add(time.Minute) {
		s.evaluate("g", at)
	}
	s.fail(func(commit int) bool { return commit > 1 })
	s.evaluate("g", last)
	require.Equal(t, map[string]time.Time{"one": first, "two": first}, s.next().since())
}

// An alert that ended during an outage, so that nobody marked its end, is not put back by a later leader.
func TestResumeForgetsOldAlerts(t *testing.T) {
	s := newSuccession(t, `
groups:
- name: g
  interval: 1m
  rules:
  - record: tick
    expr: vector(1)
  - alert: Over
    expr: gate == 1
    keep_firing_for: 20m
`)
	last := s.slot("g", 0)
	s.write("gate", last.Add(-13*time.Minute), 1)
	s.evaluate("g", last.Add(-12*time.Minute))
	s.evaluate("g", last.Add(-11*time.Minute))
	s.forget()
	s.write("gate", last.Add(-2*time.Minute), 0)
	s.evaluate("g", last.Add(-time.Minute))
	s.evaluate("g", last)
	require.Empty(t, s.next().since())
}

// A group with a long interval that has missed nothing does not hide an outage.
func TestOutageOfShortGroups(t *testing.T) {
	now := time.Now()
	records := map[string]*record{
		"none":  nil,
		"short": {interval: 15 * time.Second, newest: now.Add(-10 * time.Minute)},
		"long":  {interval: time.Hour, newest: now.Add(-5 * time.Minute)},
	}
	require.True(t, outageBefore(records, now))
	records["long"].newest = now.Add(-30 * time.Second)
	require.False(t, outageBefore(records, now))
	delete(records, "short")
	records["long"].newest = now.Add(-30 * time.Minute)
	require.False(t, outageBefore(records, now))
	require.False(t, outageBefore(nil, now), "there were no rules")
}

// halfGroup is evaluated in halves, and does not come to its turn by itself while a test lasts.
const halfGroup = `
groups:
- name: g
  interval: 1h
  rules:
  - record: whole
    expr: vector(1)
  - record: half
    expr: gate == 1
  - alert: Held
    expr: vector(1)
`

// only is the only group of a term, with what was recorded of it.
func (t *term) only(tb testing.TB) (*rules.Group, *record) {
	groups := t.rules.RuleGroups()
	require.Len(tb, groups, 1)
	rec := t.resumed[rules.GroupKey(groups[0].File(), groups[0].Name())]
	require.NotNil(tb, rec)
	return groups[0], rec
}

// A group is stopped, by a reload, say, before the first evaluation of the term comes to a rule. Its alerts go on.
func TestResumeStoppedEvaluation(t *testing.T) {
	s := newSuccession(t, halfGroup)
	last := s.slot("g", 0)
	s.write("gate", last.Add(-time.Minute), 1)
	s.evaluate("g", last)
	next := s.next()
	g, rec := next.only(t)
	require.NoError(t, next.update(nil))
	next.evaluateResumed(t.Context(), g, rec, last.Add(time.Hour))
	require.False(t, s.ended(alertSeries("Held")...))
	require.False(t, s.ended(equalTo(model.MetricNameLabel, "half")))
}

// The leader dies between two rules, and the series of the second one ends then.
func TestResumeEndsOfHalfEvaluated(t *testing.T) {
	for _, offset := range []string{"", "  query_offset: 3h\n"} {
		s := newSuccession(t, halfGroup+offset)
		s.ruler.opts.OutageTolerance = 0
		last := s.slot("g", 0)
		at := func(slot time.Time) time.Time { return slot.Add(-s.groups["g"].QueryOffset()) }
		s.write("gate", at(last.Add(-time.Hour-time.Minute)), 1)
		s.evaluate("g", last.Add(-time.Hour))
		s.fail(func(commit int) bool { return commit > 1 })
		s.evaluate("g", last)
		next := s.next()
		g, _ := next.only(t)
		next.evaluate(t.Context(), g, last.Add(time.Hour))
		require.True(t, s.ended(equalTo(model.MetricNameLabel, "half")))
		require.False(t, s.ended(equalTo(model.MetricNameLabel, "whole")))
		require.False(t, s.ended(alertSeries("Held")...))
		require.Empty(t, next.resumed)
	}
}

// A reload changes the group before its first evaluation in the term.
func TestResumeEndsAfterReload(t *testing.T) {
	s := newSuccession(t, halfGroup)
	last := s.slot("g", 0)
	s.write("gate", last.Add(-time.Minute), 1)
	s.evaluate("g", last)
	next := s.next()
	require.NoError(t, next.apply(s.load(strings.Replace(halfGroup, "rules:\n", "rules:\n  - record: new\n    expr: vector(2)\n", 1))))
	groups := next.rules.RuleGroups()
	require.Len(t, groups[0].Rules(), 4)
	next.evaluate(t.Context(), groups[0], last.Add(time.Hour))
	require.True(t, s.ended(equalTo(model.MetricNameLabel, "half")))
	require.False(t, s.ended(equalTo(model.MetricNameLabel, "whole")))
	require.False(t, s.ended(equalTo(model.MetricNameLabel, "new")))
	require.False(t, s.ended(alertSeries("Held")...))
	require.Empty(t, next.resumed)
}

// The first evaluation of the term fails. The next one ends what has ended.
func TestResumeEndsAfterFailure(t *testing.T) {
	s := newSuccession(t, halfGroup)
	last := s.slot("g", 0)
	s.write("gate", last.Add(-time.Minute), 1)
	s.evaluate("g", last)
	next := s.next()
	g, _ := next.only(t)
	s.fail(func(commit int) bool { return commit > 1 })
	next.evaluate(t.Context(), g, last.Add(time.Hour))
	require.False(t, s.ended(equalTo(model.MetricNameLabel, "half")))
	s.fail(nil)
	next.evaluate(t.Context(), g, last.Add(2*time.Hour))
	require.True(t, s.ended(equalTo(model.MetricNameLabel, "half")))
	require.False(t, s.ended(alertSeries("Held")...))
	require.Empty(t, next.resumed)
}

// The first evaluation of the term fails for one of two rules of the same name. The other one does not end its alert.
func TestResumeSameNameHalfFailed(t *testing.T) {
	s := newSuccession(t, `
groups:
- name: g
  interval: 1h
  rules:
  - alert: Down
    expr: label_replace(vector(1), "of", "one", "", "")
  - alert: Down
    expr: label_replace(vector(1), "of", "two", "", "")
`)
	last := s.slot("g", 0)
	s.evaluate("g", last)
	next := s.next()
	g, _ := next.only(t)
	s.fail(func(commit int) bool { return commit == 2 })
	next.evaluate(t.Context(), g, last.Add(time.Hour))
	require.False(t, s.ended(append(alertSeries("Down"), equalTo("of", "two"))...))
	s.fail(nil)
	next.evaluate(t.Context(), g, last.Add(2*time.Hour))
	require.False(t, s.ended(append(alertSeries("Down"), equalTo("of", "two"))...))
	require.Empty(t, next.resumed)
}

func alertSeries(name string) []*labels.Matcher {
	return []*labels.Matcher{equalTo(model.MetricNameLabel, alertsForState), equalTo(labels.AlertName, name)}
}

func equalTo(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, name, value)
}
