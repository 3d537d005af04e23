// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/monitor"
)

// farmed is a configuration that scrapes a farm every second, its targets given in the JSON form of file_sd.
func farmed(f *farm, sd string) string {
	return fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
- job_name: farm
  proxy_url: %s
  http_headers: {X-Node: {values: [NODE]}}
  file_sd_configs: [{files: [%s], refresh_interval: 1s}]
`, f.URL, sd)
}

func writeTargets(t *testing.T, path string, n int) {
	t.Helper()
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"t%d.test:80"`, i)
	}
	text := `[{"targets": [` + strings.Join(list, ",") + `]}]`
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o644))
	require.NoError(t, os.Rename(path+".new", path))
}

// settled waits until each of n targets is scraped by exactly one node, and returns which.
func settled(t *testing.T, f *farm, n int, ok func(owners map[string]string) bool) map[string]string {
	t.Helper()
	var found map[string]string
	require.Eventually(t, func() bool {
		owners, err := f.owners(time.Now().Add(-5*time.Second), n)
		if err != nil || !ok(owners) {
			return false
		}
		found = owners
		return true
	}, patience, 100*time.Millisecond)
	return found
}

func ownersOf(owners map[string]string) []string {
	var out []string
	for _, o := range owners {
		if !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	slices.Sort(out)
	return out
}

func ownedBy(want ...string) func(map[string]string) bool {
	return func(owners map[string]string) bool { return slices.Equal(ownersOf(owners), want) }
}

// A node that stops hands its targets over: the others go on with them, nothing is scraped twice for longer than an
// interval, and no series is marked stale.
func TestTargetsMoveWithoutStaleMarkers(t *testing.T) {
	const targets = 60
	const every = 2 * time.Second
	for _, window := range []time.Duration{0, time.Hour} {
		t.Run(window.String(), func(t *testing.T) {
			f := newFarm(t)
			sd := filepath.Join(t.TempDir(), "sd.json")
			writeTargets(t, sd, targets)
			nodes := startScrapers(t, monitor.ShardSpread, fsm.Settings{OutOfOrderWindow: window},
				strings.Replace(farmed(f, sd), "scrape_interval: 1s", "scrape_interval: 2s", 1))
			before := settled(t, f, targets, ownedBy("n1", "n2", "n3"))
			since := time.Now().Add(-5 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			require.NoError(t, nodes[0].scraper.Stop(ctx))
			stopped := time.Now()
			after := settled(t, f, targets, ownedBy("n2", "n3"))
			for target, owner := range before {
				if owner != "n1" {
					require.Equal(t, owner, after[target], "%s has moved without need", target)
				}
			}
			// A marker would come 2.1 intervals after the last scrape.
			time.Sleep(time.Until(stopped.Add(3 * every)))
			requireNoMarkers(t, nodes[1])
			requireOneAtATime(t, f.visits(since), every)
		})
	}
}

// requireOneAtATime insists that two nodes come for no longer than an interval to the same target. Their visits are due at
// the same moments, and may be late by half of one; on a busy machine a tenth of them by more.
func requireOneAtATime(t *testing.T, all map[string][]visit, interval time.Duration) {
	t.Helper()
	var both []time.Duration
	for _, visits := range all {
		first, last := map[string]time.Time{}, map[string]time.Time{}
		var order []string
		for _, v := range visits {
			if _, ok := first[v.node]; !ok {
				first[v.node] = v.at
				order = append(order, v.node)
			}
			last[v.node] = v.at
		}
		for i := 1; i < len(order); i++ {
			both = append(both, last[order[i-1]].Sub(first[order[i]]))
		}
	}
	slices.Sort(both)
	require.NotEmpty(t, both, "nothing has moved")
	require.Less(t, both[(len(both)-1)*9/10], interval*3/2, "two nodes at once, for so long: %v", both)
	require.Less(t, both[len(both)-1], interval+patience, "two nodes at once, for so long: %v", both)
}

// A target that discovery drops gets its stale marker, new ones are scraped, and a pool without targets stays.
func TestDiscoveryIsFollowed(t *testing.T) {
	t.Parallel()
	f := newFarm(t)
	sd := filepath.Join(t.TempDir(), "sd.json")
	writeTargets(t, sd, 20)
	nodes := startScrapers(t, monitor.ShardSpread, fsm.Settings{}, farmed(f, sd))
	settled(t, f, 20, ownedBy("n1", "n2", "n3"))
	writeTargets(t, sd, 0)
	for _, n := range nodes {
		require.Eventually(t, func() bool {
			gone := 0
			for _, values := range n.samples("answer") {
				if values[len(values)-1] == "stale" {
					gone++
				}
			}
			return gone == 20
		}, patience, 100*time.Millisecond)
		require.Equal(t, []string{"farm"}, n.scraper.Manager().ScrapePools())
	}
	writeTargets(t, sd, 25)
	settled(t, f, 25, ownedBy("n1", "n2", "n3"))
	for _, n := range nodes {
		n.configure("global: {}")
		require.Empty(t, n.scraper.Manager().ScrapePools())
	}
}

func TestLeaderScrapes(t *testing.T) {
	t.Parallel()
	f := newFarm(t)
	sd := filepath.Join(t.TempDir(), "sd.json")
	writeTargets(t, sd, 10)
	nodes := startScrapers(t, monitor.ShardLeader, fsm.Settings{}, farmed(f, sd))
	var leader *scrapeNode
	for end := time.Now().Add(2 * patience); ; {
		leader = leaderOf(t, nodes)
		settled(t, f, 10, ownedBy(leader.ID()))
		err := leader.TransferLeadership(t.Context(), "")
		if err == nil {
			break
		}
		require.True(t, time.Now().Before(end), err) // a busy machine elects at its own will, too
	}
	next := leaderOf(t, slices.DeleteFunc(slices.Clone(nodes), func(n *scrapeNode) bool { return n == leader }))
	settled(t, f, 10, ownedBy(next.ID()))
	requireNoMarkers(t, next)
}

// requireNoMarkers insists that no series was marked stale, but those of targets that did not answer in time.
func requireNoMarkers(t *testing.T, n *scrapeNode) {
	t.Helper()
	failed := map[string]bool{}
	for series, values := range n.samples("up") {
		require.NotContains(t, values, "stale", series)
		failed[strings.Replace(series, `"up"`, `"answer"`, 1)] = slices.Contains(values, "0")
	}
	for series, values := range n.samples("answer") {
		if !failed[series] {
			require.NotContains(t, values, "stale", series)
		}
	}
}
