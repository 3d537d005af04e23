// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor_test

import (
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

// managerMetrics counts the metrics of Prometheus's managers, which are there on the node that evaluates.
func managerMetrics(t *testing.T, n *ruleNode) (count int) {
	t.Helper()
	families, err := n.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "prometheus_rule_") || strings.HasPrefix(f.GetName(), "prometheus_notifications_") {
			count += len(f.GetMetric())
		}
	}
	return count
}

func (n *ruleNode) ruleNames() (out []string) {
	for _, g := range n.ruler.RuleGroups() {
		for _, r := range g.Rules() {
			out = append(out, r.Name())
		}
	}
	return out
}

func (n *ruleNode) setRules(text string) {
	n.t.Helper()
	require.NoError(n.t, os.WriteFile(n.rules, []byte(text), 0o644))
}

// Rule files count as they were at the last reload that succeeded, on whichever node; the managers' metrics move with
// the leadership, any number of times.
func TestRuleFilesAreReadByReloads(t *testing.T) {
	nodes := startRulers(t, "groups: [{name: g, rules: [{record: old, expr: '1'}]}]", newReceiver(t))
	evaluator(t, nodes).setRules("groups: [{name: g, rules: [{record: new, expr: '1'}]}]")
	for range 4 {
		n := evaluator(t, nodes)
		require.Equal(t, []string{"old"}, n.ruleNames())
		require.Len(t, n.ruler.Alertmanagers(), 1, "a new leader knows them")
		for _, other := range nodes {
			require.Eventually(t, func() bool { // a term that is over needs a moment to end
				return other == n == (managerMetrics(t, other) > 0) && other == n == (len(other.ruler.RuleGroups()) > 0)
			}, 30*time.Second, 10*time.Millisecond, "%s, %s evaluates", other.cfg.NodeID, n.cfg.NodeID)
		}
		n.transfer()
		require.Eventually(t, func() bool { return n.ruler.RuleGroups() == nil }, 30*time.Second, time.Millisecond)
	}
	for _, n := range nodes {
		n.apply()
	}
	n := evaluator(t, nodes)
	require.Equal(t, []string{"new"}, n.ruleNames())
	n.setRules("groups: [{name: g, rules: [{record: broken, expr: '('}]}]")
	for _, n := range nodes {
		require.ErrorContains(t, n.tryApply(), "parse")
	}
	require.Equal(t, []string{"new"}, n.ruleNames())
	n.transfer()
	require.Eventually(t, func() bool {
		next := evaluator(t, nodes)
		names := next.ruleNames()
		return next != n && len(names) == 1 && names[0] == "new"
	}, 30*time.Second, 10*time.Millisecond)
}

// When nothing was evaluated for long, alerts are restored as by Prometheus after a restart.
func TestRestoreAfterOutage(t *testing.T) {
	nodes := startRulers(t, "groups: []", newReceiver(t))
	n := evaluator(t, nodes)
	down := time.Now().Add(-5 * time.Minute)
	for _, name := range []string{"Long", "Short"} {
		since := down.Add(-15 * time.Minute)
		n.writeAt(labels.FromStrings(model.MetricNameLabel, "ALERTS_FOR_STATE", "alertname", name), down, float64(since.Unix()))
	}
	n.setRules("groups: [{name: g, rules: [{alert: Long, expr: vector(1), for: 30m}, {alert: Short, expr: vector(1), for: 5m}]}]")
	for _, other := range nodes {
		if other != n {
			other.apply()
		}
	}
	begin := time.Now()
	n.transfer()
	next := func() *ruleNode { return evaluator(t, nodes) }
	require.Eventually(t, func() bool { return next() != n }, 30*time.Second, 10*time.Millisecond)
	active := func(name string) time.Time {
		for _, r := range next().ruler.AlertingRules() {
			if alerts := r.ActiveAlerts(); r.Name() == name && len(alerts) == 1 {
				return alerts[0].ActiveAt
			}
		}
		return time.Time{}
	}
	// 15 minutes had passed before the outage, which counts for nothing.
	require.Eventually(t, func() bool {
		at := active("Long")
		return !at.IsZero() && at.Before(begin.Add(-14*time.Minute)) && at.After(begin.Add(-16*time.Minute))
	}, 30*time.Second, 50*time.Millisecond)
	require.True(t, active("Short").After(begin.Add(-interval)), "shorter than the grace period: it begins anew")
}

// A configuration that a notifier refuses is refused by all nodes, as by a Prometheus that starts: none keeps it for the
// day it leads. On the leader alerts go on.
func TestUnusableAlertmanagerIsRefusedByAllNodes(t *testing.T) {
	am := newReceiver(t)
	nodes := startRulers(t, "groups: [{name: g, rules: [{alert: A, expr: vector(1)}]}]", am)
	n := evaluator(t, nodes)
	require.Eventually(t, func() bool { return len(am.of("A")) > 0 }, 30*time.Second, 10*time.Millisecond)
	for _, other := range nodes {
		good := other.conf
		broken := strings.TrimSuffix(good, "]}\n") + ", {tls_config: {ca_file: /none.pem}, static_configs: [{targets: ['x:1']}]}]}\n"
		for range 8 { // the library looks at the two sections in any order
			other.conf = broken
			require.ErrorContains(t, other.tryApply(), "none.pem", "leader: %t", other == n)
		}
		other.conf = good
	}
	n = evaluator(t, nodes)
	sent := len(am.of("A"))
	require.Eventually(t, func() bool { return len(am.of("A")) > sent }, 30*time.Second, 10*time.Millisecond)
	n.transfer()
	require.Eventually(t, func() bool { return evaluator(t, nodes) != n }, 30*time.Second, 10*time.Millisecond)
	require.Len(t, evaluator(t, nodes).ruler.Alertmanagers(), 1)
}

// probeDiscovery looks at something when the discovery takes it up.
type probeDiscovery struct {
	look func()
}

// The configuration package knows only what is registered before it is first used.
func init() { discovery.RegisterConfig(&probeDiscovery{}) }

func (*probeDiscovery) Name() string { return "probe" }

func (*probeDiscovery) NewDiscovererMetrics(prometheus.Registerer, discovery.RefreshMetricsInstantiator) discovery.DiscovererMetrics {
	return &discovery.NoopDiscovererMetrics{}
}

func (d *probeDiscovery) NewDiscoverer(discovery.DiscovererOptions) (discovery.Discoverer, error) {
	d.look()
	return discovery.StaticConfig{}.NewDiscoverer(discovery.DiscovererOptions{})
}

// What the discovery finds first with a new configuration must meet the new notifier: the old one takes it away, and
// static Alertmanagers are not found again.
func TestNotifierIsReloadedBeforeItsDiscovery(t *testing.T) {
	nodes := startRulers(t, "groups: []", newReceiver(t))
	found := func() bool { return len(evaluator(t, nodes).ruler.Alertmanagers()) == 1 }
	require.Eventually(t, found, 30*time.Second, 10*time.Millisecond)
	n := evaluator(t, nodes)
	conf, err := config.Load(n.conf, promslog.NewNopLogger())
	require.NoError(t, err)
	am, looked := conf.AlertingConfig.AlertmanagerConfigs[0], false
	am.ServiceDiscoveryConfigs = append(am.ServiceDiscoveryConfigs, &probeDiscovery{look: func() {
		looked = true
		require.Empty(t, n.ruler.Alertmanagers(), "the section has changed, so the new notifier knows of none yet")
	}})
	require.NoError(t, n.ruler.ApplyConfig(conf, &url.URL{Scheme: "http", Host: "deucalion"}))
	require.True(t, looked)
	require.Eventually(t, found, 30*time.Second, 10*time.Millisecond)
}
