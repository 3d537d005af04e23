// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package promql_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/monitor"
)

const (
	noStartTimestamps = "start timestamps are not stored"
	noResetHints      = "a hint that a counter was not reset depends on how the samples lie in chunks, which differs between nodes"
)

// leftOut are evaluations that need what this storage does not keep, as docs/differences.md says. "" is a whole file.
var leftOut = map[string]map[string]string{
	"start_timestamps.test": {"": noStartTimestamps},
	"native_histograms.test": {
		"eval instant at 5m sum(metric)":                                noResetHints,
		"eval instant at 5m avg(metric)":                                noResetHints,
		`eval instant at 3m sum(metric{type=~"counter.*"})`:             noResetHints,
		`eval instant at 3m avg(metric{type=~"counter.*"})`:             noResetHints,
		"eval instant at 3m sum_over_time(mixed[3m])":                   noResetHints,
		"eval instant at 3m avg_over_time(mixed[3m])":                   noResetHints,
		"eval instant at 11m histogram_count(sum_over_time(mixed[2m]))": noResetHints,
		"eval instant at 11m histogram_count(avg_over_time(mixed[2m]))": noResetHints,
	},
	"range_queries.test": {"eval instant at 2m some_metric[2m]": noResetHints},
}

func TestPromQL(t *testing.T) {
	n := startFollower(t)
	engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	files, err := filepath.Glob(filepath.Join(moduleDir(t), "promql", "promqltest", "testdata", "*.test"))
	require.NoError(t, err)
	require.Greater(t, len(files), 15)
	left := 0
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			out := leftOut[name]
			left += len(out)
			if why, whole := out[""]; whole {
				t.Logf("left out: %s", why)
				return
			}
			promqltest.RunTestWithStorage(t, without(t, string(text), out), engine, func(tb testing.TB) storage.Storage {
				n.empty(tb)
				return n
			})
		})
	}
	total := 0
	for _, out := range leftOut {
		total += len(out)
	}
	require.Equal(t, total, left, "files that are left out are there")
}

// moduleDir is where Prometheus's sources are.
func moduleDir(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/prometheus").Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

// without removes evaluations with what they expect, each of which must be there once. Line numbers stay.
func without(t *testing.T, text string, out map[string]string) string {
	t.Helper()
	lines := strings.Split(text, "\n")
	removed := map[string]int{}
	for i := 0; i < len(lines); i++ {
		eval := strings.TrimSpace(lines[i])
		if _, ok := out[eval]; !ok {
			continue
		}
		removed[eval]++
		for ; i < len(lines) && strings.TrimSpace(lines[i]) != ""; i++ {
			lines[i] = ""
		}
	}
	for eval := range out {
		require.Equal(t, 1, removed[eval], eval)
	}
	return strings.Join(lines, "\n")
}

// follower is a node that does not lead, as a storage.Storage.
type follower struct {
	*monitor.Appendable
	node *cluster.Node
	fsm  *fsm.FSM
}

var _ storage.Storage = (*follower)(nil)

// startFollower forms a cluster of three that takes samples of any age, and returns a follower.
func startFollower(t *testing.T) *follower {
	t.Helper()
	var nodes []*cluster.Node
	var states []*fsm.FSM
	for i := range 3 {
		cfg := cluster.Config{
			Dir: t.TempDir(), NodeID: fmt.Sprintf("n%d", i), BootstrapExpect: 3,
			ListenAddress: "127.0.0.1:0", GossipListenAddress: "127.0.0.1:0",
			Settings:   func() fsm.Settings { return fsm.Settings{OutOfOrderWindow: 100 * 365 * 24 * time.Hour} },
			Registerer: prometheus.NewRegistry(),
			OnFatal:    func(err error) { t.Errorf("fatal: %v", err) },
		}
		for _, n := range nodes {
			cfg.Peers = append(cfg.Peers, n.GossipAddress())
		}
		snapshots, err := cluster.OpenSnapshots(cfg.Dir, nil)
		require.NoError(t, err)
		f, err := fsm.Open(fsm.Options{Dir: cfg.Dir}, "")
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, f.Close()) })
		n, err := cluster.Start(cfg, f, snapshots)
		require.NoError(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			require.NoError(t, n.Shutdown(ctx))
		})
		nodes, states = append(nodes, n), append(states, f)
	}
	chosen := -1
	require.Eventually(t, func() bool {
		for i, n := range nodes {
			if n.Ready() == nil && !n.IsLeader() && states[i].Settings().OutOfOrderWindow > 0 {
				chosen = i
				return true
			}
		}
		return false
	}, 30*time.Second, 10*time.Millisecond)
	n := nodes[chosen]
	return &follower{
		Appendable: monitor.NewAppendable(monitor.AppendableOptions{FSM: states[chosen], Proposer: n, Registerer: prometheus.NewRegistry()}),
		node:       n, fsm: states[chosen],
	}
}

// empty deletes all that there is, and returns when this node has done it, as the API's call does.
func (n *follower) empty(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	everything := [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".*")}}
	_, err := n.node.Propose(ctx, fsm.EncodeDelete(fsm.Delete{
		ID: fmt.Sprint(time.Now().UnixNano()), Selectors: everything, Mint: -1 << 48, Maxt: 1 << 48,
	}))
	require.NoError(tb, err)
	require.NoError(tb, n.catchUp())
}

// catchUp waits until this node has everything that was acknowledged.
func (n *follower) catchUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	index, err := n.node.ReadIndex(ctx)
	if err != nil {
		return err
	}
	return n.fsm.Wait(ctx, index)
}

// Querier implements storage.Queryable.
func (n *follower) Querier(mint, maxt int64) (storage.Querier, error) {
	if err := n.catchUp(); err != nil {
		return nil, err
	}
	return n.fsm.Querier(mint, maxt)
}

// ChunkQuerier implements storage.ChunkQueryable.
func (n *follower) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	if err := n.catchUp(); err != nil {
		return nil, err
	}
	return n.fsm.ChunkQuerier(mint, maxt)
}

// StartTime implements storage.Storage.
func (*follower) StartTime() (int64, error) { return 0, nil }

// Close implements storage.Storage. The node serves the next test.
func (*follower) Close() error { return nil }
