// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

func owners(members ...string) map[uint64]string {
	out := map[uint64]string{}
	for i := range 500 {
		key := targetKey("node", fmt.Sprintf("http://host-%d:9100/metrics", i))
		out[key] = owner(members, key)
	}
	return out
}

func TestOwnersAreBalanced(t *testing.T) {
	for _, members := range [][]string{{"n1", "n2", "n3"}, {"a", "b", "c", "d", "e"}, {"0f3ac1", "77d0e2", "9be04f"}} {
		count := map[string]int{}
		for _, o := range owners(members...) {
			count[o]++
		}
		require.Len(t, count, len(members))
		for m, n := range count {
			require.InEpsilon(t, 500/len(members), n, 0.2, "%s of %v", m, members)
		}
	}
}

// Only what a node has, or is to have, moves when it goes or comes.
func TestOwnersChangeLittle(t *testing.T) {
	three, two := owners("n1", "n2", "n3"), owners("n1", "n3")
	moved := 0
	for key, had := range three {
		if has := two[key]; has != had {
			require.Equal(t, "n2", had)
			moved++
		}
	}
	require.NotZero(t, moved)
	require.Equal(t, three, owners("n3", "n2", "n1"), "the order says nothing")
	require.Empty(t, owner(nil, 1))
}

func catalogueOf(t *testing.T, yaml string, groups ...*targetgroup.Group) *catalogue {
	t.Helper()
	cfg, err := config.Load("scrape_configs:\n- job_name: j\n"+yaml, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	c := &catalogue{}
	c.setConfigs(map[string]*config.ScrapeConfig{"j": cfg.ScrapeConfigs[0]})
	c.update(targetSets{"j": groups})
	return c
}

func addresses(list ...string) *targetgroup.Group {
	g := &targetgroup.Group{Source: "s"}
	for _, a := range list {
		g.Targets = append(g.Targets, model.LabelSet{model.AddressLabel: model.LabelValue(a)})
	}
	return g
}

// A Pod with several ports is discovered once a port, and relabelling makes one target of them: one node must have it.
func TestDuplicatesMeetOnOneNode(t *testing.T) {
	c := catalogueOf(t, `  relabel_configs: [{source_labels: [__address__], regex: '(.*):\d+', replacement: '$1:9100', target_label: __address__}]`,
		addresses("a:1", "a:2", "a:3", "b:1", "b:2", "c:1"))
	members := []string{"n1", "n2", "n3"}
	total := 0
	for _, m := range members {
		_, n := c.own(share{self: m, members: members})
		total += n
	}
	require.Equal(t, 3, total)
}

// Each discovered target is passed on by exactly one node, also one that is dropped or broken; a group and a job of which
// a node has nothing are passed on all the same.
func TestSharesAreComplete(t *testing.T) {
	c := catalogueOf(t, `  relabel_configs: [{source_labels: [__address__], regex: 'drop.*', action: drop}]`,
		addresses("a:1", "b:1", "drop-1:1", "drop-2:1", "bad/address"), addresses())
	members := []string{"n1", "n2", "n3"}
	seen := map[model.LabelValue]int{}
	for _, m := range members {
		sets, _ := c.own(share{self: m, members: members})
		require.Len(t, sets["j"], 2)
		for _, g := range sets["j"] {
			for _, target := range g.Targets {
				seen[target[model.AddressLabel]]++
			}
		}
	}
	require.Equal(t, map[model.LabelValue]int{"a:1": 1, "b:1": 1, "drop-1:1": 1, "drop-2:1": 1, "bad/address": 1}, seen)
	sets, n := c.own(share{})
	require.Zero(t, n)
	require.Len(t, sets["j"], 2)
	_, n = c.own(share{all: true})
	require.Equal(t, 2, n)
}

func TestMovesAreTold(t *testing.T) {
	var list []string
	for i := range 100 {
		list = append(list, fmt.Sprintf("h%d:1", i))
	}
	c := catalogueOf(t, "", addresses(list...))
	both, alone := share{self: "n1", members: []string{"n1", "n2"}}, share{self: "n1", members: []string{"n1"}}
	_, mine := c.own(both)
	come, gone := c.moves(both, alone)
	require.Equal(t, 100-mine, come)
	require.Empty(t, gone)
	come, gone = c.moves(alone, both)
	require.Zero(t, come)
	require.Len(t, gone["j"], 100-mine)
}

func TestPart(t *testing.T) {
	var p part
	now := time.Now()
	look := func(err error, after time.Duration) bool {
		now = now.Add(after)
		in, _ := p.look(err, now)
		return in
	}
	passing := fmt.Errorf("%w: no leader", cluster.ErrNotReady)
	require.False(t, look(passing, 0), "not before it was ready")
	require.True(t, look(nil, time.Second))
	require.True(t, look(passing, time.Second), "an election")
	require.True(t, look(nil, partGrace))
	require.True(t, look(passing, partGrace-1))
	require.False(t, look(passing, 1))
	require.False(t, look(passing, 1))
	for _, cause := range []error{cluster.ErrStopped, cluster.ErrDiskFull, cluster.ErrClockOff, cluster.ErrFSMFailed} {
		require.True(t, look(nil, 1))
		require.False(t, look(errors.Join(cluster.ErrNotReady, cause), 1))
	}
}
