// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package scrape_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

const (
	targets  = 500
	interval = 4 * time.Second
	// patience bounds the waits for what must come.
	patience = 2 * time.Minute
	// detection is more than gossip needs to find a node dead.
	detection = 20 * time.Second
	// busy is more than a node needs to begin with targets that it has taken over, and a scrape to arrive.
	busy = interval / 2
)

func TestMain(m *testing.M) { harness.Main(m) }

// suite is a cluster that scrapes a farm.
type suite struct {
	*testing.T
	farm    *farm
	cluster *local.Cluster
}

// names are the addresses of the first n targets, as a list of JSON and YAML.
func names(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"t%d.test:80"`, i)
	}
	return strings.Join(list, ",")
}

func start(t *testing.T) *suite {
	path := filepath.Join(t.TempDir(), "prometheus.yml")
	// With an out-of-order window a late stale marker would not be refused for being late.
	yaml := fmt.Sprintf("storage: {tsdb: {out_of_order_time_window: 1h}}\nglobal: {scrape_interval: %s, scrape_timeout: %[1]s}\nscrape_configs:\n- job_name: farm\n  proxy_from_environment: true\n"+
		"  static_configs: [{targets: [%s]}]\n", interval, names(targets))
	require.NoError(t, os.WriteFile(path, []byte(yaml), 0o644))
	s := &suite{t, newFarm(t), harness.Prepare(t, local.ClusterOptions{Flags: []string{"--config.file=" + path}})}
	for _, n := range s.cluster.Nodes {
		s.startNode(n)
	}
	for _, n := range s.cluster.Nodes {
		harness.WaitReady(t, n)
	}
	return s
}

func (s *suite) startNode(n *local.Server) {
	s.Helper()
	require.NoError(s, n.Start(s.farm.proxy(n.Name)))
}

// settled waits until each target is scraped by one of these nodes alone, each of which has its part.
func (s *suite) settled(what string, nodes ...string) map[string]string {
	s.Helper()
	return s.settledAt(targets, interval, what, nodes...)
}

func (s *suite) settledAt(n int, interval time.Duration, what string, nodes ...string) map[string]string {
	s.Helper()
	var owners map[string]string
	harness.Await(s.T, patience, what, func(context.Context) (err error) {
		if owners, err = s.farm.owners(n, interval); err != nil {
			return err
		}
		if have := slices.Sorted(maps.Keys(count(owners))); !slices.Equal(have, nodes) {
			return fmt.Errorf("%v scrape", have)
		}
		return nil
	})
	return owners
}

func count(owners map[string]string) map[string]int {
	n := map[string]int{}
	for _, node := range owners {
		n[node]++
	}
	return n
}

func TestFiveHundredTargets(t *testing.T) {
	s := start(t)
	began := time.Now()
	all := s.settled("all nodes to scrape", "n1", "n2", "n3")
	for node, n := range count(all) {
		require.InEpsilon(t, targets/3, n, 0.2, "targets of %s", node)
	}
	s.requireShown(all, s.cluster.Nodes)

	// A node dies: its targets are taken over, and no others move.
	steady := time.Now()
	victim := s.cluster.Nodes[0]
	require.NoError(t, victim.Kill())
	died := time.Now()
	s.awaitOwned(s.cluster.Nodes[1:])
	known := time.Since(died)
	require.Less(t, known, detection)
	without := s.settled("two nodes to take over", "n2", "n3")
	s.requireMoved(all, without, victim.Name)
	s.requireTakenOver(victim.Name, died, known)
	s.requireOneAtATime(steady, all, without)
	s.requireShown(without, s.cluster.Nodes[1:])

	// It comes back, and with it the division of before.
	steady = time.Now()
	s.startNode(victim)
	harness.WaitReady(t, victim)
	require.Equal(t, all, s.settled("the node to take its targets back", "n1", "n2", "n3"))
	s.requireOneAtATime(steady, without, all)

	// A node is stopped: its targets move at once.
	steady = time.Now()
	stopped := s.cluster.Nodes[1]
	left := time.Now()
	require.NoError(t, stopped.Stop())
	rest := s.settled("two nodes to go on", "n1", "n3")
	s.requireMoved(all, rest, stopped.Name)
	s.requireOneAtATime(steady, all, rest)
	s.requireTakenOver(stopped.Name, left, 0)
	time.Sleep(time.Until(left.Add(3 * interval))) // stale markers come 2.1 intervals after the last scrape
	s.requireNeverStale(began)

	// A node that hangs is not found dead at once: until then the others say that its part is missing.
	require.NoError(t, victim.Pause())
	defer func() { require.NoError(t, victim.Resume()) }()
	s.requireWarning(s.cluster.Nodes[2], "node "+victim.Name+": ")
}

func (s *suite) requireWarning(n *local.Server, want string) {
	s.Helper()
	cl := n.Client()
	defer cl.Close()
	resp, err := cl.Get(s.Context(), "/api/v1/targets", nil)
	require.NoError(s, err)
	var answer struct {
		Data     struct{ ActiveTargets []struct{ Node string } }
		Warnings []string
	}
	require.NoError(s, json.Unmarshal(resp.Body, &answer))
	require.Len(s, answer.Warnings, 1)
	require.Contains(s, answer.Warnings[0], want)
	require.NotEmpty(s, answer.Data.ActiveTargets)
	for _, t := range answer.Data.ActiveTargets {
		require.Equal(s, n.Name, t.Node)
	}
}

// requireMoved insists that nothing moved but the targets of a node.
func (s *suite) requireMoved(before, after map[string]string, gone string) {
	s.Helper()
	for target, node := range before {
		if node != gone {
			require.Equal(s, node, after[target], target)
		}
	}
}

// awaitOwned waits until these nodes scrape all targets.
func (s *suite) awaitOwned(nodes []*local.Server) {
	s.Helper()
	clients := harness.Clients(s.T, nodes)
	harness.Await(s.T, patience, "nodes to scrape all targets", func(ctx context.Context) error {
		sum := 0.0
		for _, cl := range clients {
			m, err := cl.Metrics(ctx)
			if err != nil {
				return err
			}
			sum += m.Sum("deucalion_scrape_targets")
		}
		if sum != targets {
			return fmt.Errorf("they scrape %v", sum)
		}
		return nil
	})
}

// requireTakenOver insists that each target of a node that is gone was scraped again at its next slot that came after the
// others knew: only scrapes that were due until then are missed. On a busy machine a tenth may be later than that.
func (s *suite) requireTakenOver(gone string, at time.Time, known time.Duration) {
	s.Helper()
	missed := (known + busy + interval - 1) / interval
	var gaps []time.Duration
	var longest time.Duration
	for target, visits := range s.farm.since(at.Add(-3 * interval)) {
		var last, next time.Time
		for _, v := range visits {
			switch {
			case v.node == gone:
				last = v.at
			case next.IsZero():
				next = v.at
			}
		}
		if last.IsZero() {
			continue // not one of its targets
		}
		require.False(s, next.IsZero(), "%s was never scraped again", target)
		gaps, longest = append(gaps, next.Sub(last)), max(longest, next.Sub(at))
	}
	s.requireShort(gaps, (missed+1)*interval, fmt.Sprintf("gaps, others knew after %s", known))
	s.Logf("%s after %s was gone the others knew, after %s the last target was scraped again, with gaps of up to %s", known.Round(time.Millisecond), gone,
		longest.Round(time.Millisecond), slices.Max(gaps).Round(time.Millisecond))
}

// requireShort insists that nine of ten times are no longer than a bound and the moment that a busy node needs, and that no
// target was out of the order for long.
func (s *suite) requireShort(times []time.Duration, bound time.Duration, what string) {
	s.Helper()
	slices.Sort(times)
	require.NotEmpty(s, times, what)
	require.LessOrEqual(s, times[(len(times)-1)*9/10], bound+busy, "%s: %v", what, times)
	require.LessOrEqual(s, times[len(times)-1], bound+patience, "%s: %v", what, times)
}

// requireOneAtATime insists that of the nodes that scraped a target before and after a change, the two scraped it at the
// same time for no longer than an interval, and no other node ever. Both come at the same slots, or a little later; on a
// busy machine a tenth much later.
func (s *suite) requireOneAtATime(since time.Time, before, after map[string]string) {
	s.Helper()
	var both []time.Duration
	for target, visits := range s.farm.since(since) {
		var first, last time.Time
		for _, v := range visits {
			require.Contains(s, []string{before[target], after[target]}, v.node, target)
			if v.node == before[target] {
				last = v.at
			} else if first.IsZero() {
				first = v.at
			}
		}
		if !first.IsZero() {
			both = append(both, last.Sub(first))
		}
	}
	s.requireShort(both, interval, "two nodes at once")
}

// requireShown insists that these nodes show all targets, each with the node that scrapes it.
func (s *suite) requireShown(owners map[string]string, nodes []*local.Server) {
	s.Helper()
	for _, n := range nodes {
		cl := n.Client()
		defer cl.Close()
		harness.Await(s.T, patience, "the targets on "+n.Name, func(ctx context.Context) error {
			var data struct {
				ActiveTargets []struct {
					ScrapeURL, Node, Health string
					Labels                  map[string]string
				}
			}
			if err := cl.Data(ctx, "/api/v1/targets", nil, &data); err != nil {
				return err
			}
			shown := map[string]string{}
			for _, t := range data.ActiveTargets {
				if t.Health != "up" {
					return fmt.Errorf("%s is %s", t.ScrapeURL, t.Health)
				}
				shown[t.Labels["instance"]] = t.Node
			}
			if len(data.ActiveTargets) != targets || !maps.Equal(shown, owners) {
				return errors.New("other targets or nodes are shown")
			}
			return nil
		})
	}
}

// requireNeverStale insists that every node which runs has all series of the farm, none of them ever marked stale.
func (s *suite) requireNeverStale(began time.Time) {
	s.Helper()
	for _, n := range s.cluster.Nodes {
		if !n.Running() {
			continue
		}
		series := 0
		for key, samples := range harness.ReadAll(s.T, n) {
			if !strings.Contains(key, `__name__="up"`) && !strings.Contains(key, `__name__="answer"`) {
				continue
			}
			series++
			for _, x := range samples {
				require.NotEqual(s, value.StaleNaN, x.Bits, "%s: %s is stale %s after the start", n.Name, key, time.UnixMilli(x.T).Sub(began))
			}
		}
		require.Equal(s, 2*targets, series, n.Name)
	}
}
