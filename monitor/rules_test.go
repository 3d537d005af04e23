// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor_test

import (
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
)

// Leaders are changed and crash again and again. No slot is evaluated twice, at most one in a row is missed, and an alert
// fires when it has held for its time, once, with one start.
func TestRulesSurviveLeaders(t *testing.T) {
	am := newReceiver(t)
	nodes := startRulers(t, `
groups:
- name: g
  rules:
  - record: tick
    expr: time()
  - alert: Held
    expr: vector(1)
    for: 16s
  - alert: Twin
    expr: label_replace(vector(1), "of", "two", "", "")
  - alert: Twin
    expr: label_replace(vector(1), "one", "two", "", "")
`, am)
	first := evaluator(t, nodes)
	require.Eventually(t, func() bool { ts, _ := first.times(equal(model.MetricNameLabel, "tick")); return len(ts) > 0 }, 30*time.Second, 20*time.Millisecond)
	for round := range 8 {
		n := evaluator(t, nodes)
		start, _ := n.times(equal(model.MetricNameLabel, "tick"))
		require.Eventually(t, func() bool {
			ts, _ := n.times(equal(model.MetricNameLabel, "tick"))
			return len(ts) > len(start) || n.ruler.Evaluates(t.Context()) != nil
		}, 30*time.Second, 10*time.Millisecond)
		if round%4 != 3 {
			n.transfer()
			continue
		}
		n.crash()
		evaluator(t, nodes)
		n.start()
		require.Eventually(t, func() bool { return n.Ready() == nil }, 30*time.Second, 10*time.Millisecond)
	}
	require.Eventually(t, func() bool { return len(am.of("Held")) >= 1 }, 60*time.Second, 20*time.Millisecond, "the alert never fired")
	last := evaluator(t, nodes)
	last.transfer()
	require.Eventually(t, func() bool { a := am.of("Held"); return a[len(a)-1].Labels["sender"] != last.cfg.NodeID }, 30*time.Second, 20*time.Millisecond,
		"the next leader sends again what fires")

	n := evaluator(t, nodes)
	ticks, _ := n.times(equal(model.MetricNameLabel, "tick"))
	for i := 1; i < len(ticks); i++ {
		require.LessOrEqual(t, ticks[i]-ticks[i-1], 2*interval.Milliseconds(), "slots are missing after %d of %v", i, ticks)
		require.Zero(t, (ticks[i]-ticks[0])%interval.Milliseconds(), "not a slot")
	}
	n.log.mu.Lock()
	for at, who := range n.log.nodes {
		require.Len(t, who, 1, "slot %d was evaluated by %v", at, who)
	}
	n.log.mu.Unlock()
	active, since := n.times(equal(model.MetricNameLabel, "ALERTS_FOR_STATE"), equal("alertname", "Held"))
	for _, s := range since {
		require.Equal(t, since[0], s, "the alert has begun anew: %v at %v", since, active)
	}
	require.NotEmpty(t, am.of("Twin"))
	for _, a := range am.of("Twin") {
		require.False(t, a.resolved(), "a rule has taken the other's alert: %+v", a)
	}
	// A leader may go between two rules of a group. The alert then fires at its next evaluation, and a later leader, who
	// cannot tell, says when it was due.
	due := active[0] + 16_000
	i, _ := slices.BinarySearch(active, due)
	require.Less(t, i, len(active), "sent before it was due: %v", active)
	require.LessOrEqual(t, active[i], due+2*interval.Milliseconds())
	for _, a := range am.of("Held") {
		require.False(t, a.resolved(), "%+v", a)
		require.Contains(t, []int64{due, active[i]}, a.StartsAt.UnixMilli(), "evaluated at %v: %+v", active, a)
	}
}

// An alert whose expression holds no more keeps firing for its time over a change of the leader, and ends then.
func TestKeepFiringSurvivesLeaders(t *testing.T) {
	am := newReceiver(t)
	nodes := startRulers(t, `
groups:
- name: g
  rules:
  - alert: Kept
    expr: gate == 1
    keep_firing_for: 20s
    labels:
      was: '{{ $value }}'
    annotations:
      text: 'gate is {{ $value }}'
`, am)
	evaluator(t, nodes).write("gate", 1)
	require.Eventually(t, func() bool { return len(am.of("Kept")) >= 1 }, 60*time.Second, 20*time.Millisecond, "the alert never fired")
	closed := time.Now()
	evaluator(t, nodes).write("gate", 0)
	for range 3 {
		n := evaluator(t, nodes)
		before, _ := n.times(equal(model.MetricNameLabel, "ALERTS"), equal("alertname", "Kept"))
		require.Eventually(t, func() bool {
			ts, _ := n.times(equal(model.MetricNameLabel, "ALERTS"), equal("alertname", "Kept"))
			return len(ts) > len(before) || n.ruler.Evaluates(t.Context()) != nil
		}, 30*time.Second, 10*time.Millisecond)
		n.transfer()
	}
	n := evaluator(t, nodes)
	var alerts []int
	for _, rule := range n.ruler.AlertingRules() {
		alerts = append(alerts, len(rule.ActiveAlerts()))
	}
	if time.Since(closed) < 15*time.Second {
		require.Equal(t, []int{1}, alerts, "the alert is not there any more")
	}
	require.Eventually(t, func() bool { a := am.of("Kept"); return a[len(a)-1].resolved() }, 60*time.Second, 20*time.Millisecond, "the alert never ended")
	sent := am.of("Kept")
	for _, a := range sent[:len(sent)-1] {
		require.False(t, a.resolved(), "it ended before: %+v", sent)
		require.Equal(t, sent[0].StartsAt, a.StartsAt)
	}
	// The expression was false at the first slot after the gate was closed; one interval may be lost.
	require.InDelta(t, 20+interval.Seconds(), sent[len(sent)-1].EndsAt.Sub(closed).Seconds(), 2*interval.Seconds())
	require.Equal(t, "1", sent[0].Labels["was"])
}

const steadyRules = `
groups:
- name: g
  rules:
  - record: tick
    expr: time()
  - alert: Steady
    expr: vector(1)
`

// A leader that has lost the majority evaluates and notifies nothing. When the majority is back, what came due is made up
// for, and no alert that went on is taken for resolved.
func TestNoRulesWithoutMajority(t *testing.T) {
	am := newReceiver(t)
	nodes := startRulers(t, steadyRules, am)
	n := evaluator(t, nodes)
	require.Eventually(t, func() bool { return len(am.of("Steady")) > 0 }, 30*time.Second, 10*time.Millisecond)
	for _, other := range nodes {
		if other != n {
			other.stop()
		}
	}
	// The metrics of the managers go last.
	require.Eventually(t, func() bool { return n.ruler.Evaluates(t.Context()) != nil && managerMetrics(t, n) == 0 }, 30*time.Second, 10*time.Millisecond,
		"it takes itself for the leader for ever")
	ended := time.Now()
	n.log.mu.Lock()
	evaluated := len(n.log.nodes)
	n.log.mu.Unlock()
	// Longer than an alert is valid: four intervals.
	require.Never(t, func() bool { return n.ruler.RuleGroups() != nil }, 5*interval, 50*time.Millisecond)
	n.log.mu.Lock()
	require.Len(t, n.log.nodes, evaluated, "it has evaluated")
	n.log.mu.Unlock()
	sent := len(am.of("Steady"))
	for _, a := range am.of("Steady") { // but for what was on its way
		require.True(t, a.at.Before(ended.Add(interval)), "it has notified: %+v, the term ended at %s", a, ended)
	}
	require.Zero(t, managerMetrics(t, n))

	for _, other := range nodes {
		if other != n {
			other.start()
		}
	}
	require.Eventually(t, func() bool { return len(am.of("Steady")) > sent+1 }, 60*time.Second, 10*time.Millisecond)
	steady := am.of("Steady")
	for _, a := range steady {
		require.False(t, a.resolved(), "%+v", a)
		require.Equal(t, steady[0].StartsAt, a.StartsAt)
	}
	ticks, _ := evaluator(t, nodes).times(equal(model.MetricNameLabel, "tick"))
	slots := int((ticks[len(ticks)-1]-ticks[0])/interval.Milliseconds()) + 1
	// A busy machine may miss a slot or two, but the outage was longer.
	require.GreaterOrEqual(t, len(ticks), slots-2, "slots are missing in %v", ticks)
}

// A leader that no majority confirms, as after a pause of its process, evaluates and notifies nothing, whatever it takes
// itself for.
func TestDeposedLeaderEvaluatesNothing(t *testing.T) {
	am := newReceiver(t)
	nodes := startRulers(t, steadyRules, am)
	n := evaluator(t, nodes)
	require.Eventually(t, func() bool { return len(am.of("Steady")) > 0 }, 30*time.Second, 10*time.Millisecond)
	am.gate.Lock() // one notification is on its way then, and two wait for it
	letGo := sync.OnceFunc(am.gate.Unlock)
	defer letGo()
	require.Eventually(t, func() bool { return n.metric("prometheus_notifications_queue_length") >= 2 }, 30*time.Second, 10*time.Millisecond)
	n.deposed.Store(true)
	from := time.Now()
	requests := am.count()
	letGo()

	require.Eventually(t, func() bool { return n.metric("deucalion_rules_unconfirmed_evaluations_total") >= 3 }, 30*time.Second, 10*time.Millisecond,
		"no evaluation was left out")
	require.NotNil(t, n.ruler.RuleGroups(), "it knows that it does not lead")
	ticks, _ := n.times(equal(model.MetricNameLabel, "tick"))
	require.LessOrEqual(t, ticks[len(ticks)-1], from.UnixMilli(), "it has evaluated")
	require.LessOrEqual(t, am.count(), requests+1, "it has sent what was queued")

	sent := am.count()
	n.deposed.Store(false)
	require.Eventually(t, func() bool {
		ts, _ := n.times(equal(model.MetricNameLabel, "tick"))
		return len(ts) > len(ticks) && am.count() > sent
	}, 30*time.Second, 10*time.Millisecond, "it is confirmed, and does not go on")
}

// What ended while the leaders changed has a stale marker, so that no query sees it for five minutes more.
func TestSeriesEndWithLeaders(t *testing.T) {
	am := newReceiver(t)
	nodes := startRulers(t, `
groups:
- name: g
  rules:
  - record: copy
    expr: gate == 1
`, am)
	n := evaluator(t, nodes)
	n.write("gate", 1)
	require.Eventually(t, func() bool { ts, _ := n.times(equal(model.MetricNameLabel, "copy")); return len(ts) > 0 }, 30*time.Second, time.Millisecond)
	n.write("gate", 0) // right after an evaluation, so that the next leader is the first to see it
	n.transfer()
	require.Eventually(t, func() bool {
		_, vs := evaluator(t, nodes).times(equal(model.MetricNameLabel, "copy"))
		return value.IsStaleNaN(vs[len(vs)-1])
	}, 30*time.Second, 20*time.Millisecond)
	_, vs := evaluator(t, nodes).times(equal(model.MetricNameLabel, "copy"))
	for _, v := range vs[:len(vs)-1] {
		require.False(t, math.IsNaN(v))
	}
}
