// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	_ "github.com/prometheus/prometheus/discovery/file"
	_ "github.com/prometheus/prometheus/discovery/http"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/monitor"
)

// patience bounds every wait for what must come.
const patience = 60 * time.Second

// scrapeNode is a node of a cluster with real disks and sockets that scrapes.
type scrapeNode struct {
	*cluster.Node
	t       *testing.T
	fsm     *fsm.FSM
	scraper *monitor.Scraper
}

// startScrapers forms a cluster of three whose nodes scrape by a configuration, in which NODE stands for the id.
func startScrapers(t *testing.T, mode monitor.ShardMode, settings fsm.Settings, yaml string) []*scrapeNode {
	t.Helper()
	var nodes []*scrapeNode
	var peers []string
	for i := range 3 {
		n := startScraper(t, fmt.Sprintf("n%d", i+1), peers, mode, settings)
		peers = append(peers, n.GossipAddress())
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.configure(yaml)
	}
	for _, n := range nodes {
		require.Eventually(t, func() bool { return n.Ready() == nil }, patience, 10*time.Millisecond)
	}
	return nodes
}

func startScraper(t *testing.T, id string, peers []string, mode monitor.ShardMode, settings fsm.Settings) *scrapeNode {
	t.Helper()
	level := slog.LevelError + 4
	if os.Getenv("MONITOR_TEST_LOG") != "" {
		level = slog.LevelInfo
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("node", id)
	dir := t.TempDir()
	snapshots, err := cluster.OpenSnapshots(dir, logger)
	require.NoError(t, err)
	n := &scrapeNode{t: t}
	n.fsm, err = fsm.Open(fsm.Options{Dir: dir, Logger: logger}, "")
	require.NoError(t, err)
	registry := prometheus.NewRegistry()
	n.Node, err = cluster.Start(cluster.Config{
		Dir: dir, NodeID: id, BootstrapExpect: 3, Peers: peers,
		ListenAddress: "127.0.0.1:0", GossipListenAddress: "127.0.0.1:0",
		Settings: func() fsm.Settings { return settings },
		Logger:   logger, Registerer: registry, OnFatal: func(err error) { t.Errorf("fatal: %v", err) },
	}, n.fsm, snapshots)
	require.NoError(t, err)
	sd, err := discovery.CreateAndRegisterSDMetrics(registry)
	require.NoError(t, err)
	n.scraper, err = monitor.NewScraper(monitor.ScraperOptions{
		Cluster: n, Mode: mode, SDMetrics: sd, Logger: logger, Registerer: registry,
		Appendable: monitor.NewAppendable(monitor.AppendableOptions{FSM: n.fsm, Proposer: n, Registerer: registry}),
		Scrape:     scrape.Options{DiscoveryReloadInterval: model.Duration(50 * time.Millisecond)},
	})
	require.NoError(t, err)
	n.scraper.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, n.scraper.Stop(ctx))
		require.NoError(t, n.Shutdown(ctx))
		require.NoError(t, n.fsm.Close())
	})
	return n
}

func (n *scrapeNode) configure(yaml string) {
	n.t.Helper()
	cfg, err := config.Load(strings.ReplaceAll(yaml, "NODE", n.ID()), slog.New(slog.DiscardHandler))
	require.NoError(n.t, err)
	require.NoError(n.t, n.scraper.ApplyConfig(cfg))
}

// samples are the values of the series with a name, in this node's state, by labels. A stale marker is "stale".
func (n *scrapeNode) samples(name string) map[string][]string {
	n.t.Helper()
	q, err := n.fsm.Querier(0, 1<<50)
	require.NoError(n.t, err)
	defer q.Close()
	out := map[string][]string{}
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", name))
	for set.Next() {
		s := set.At()
		for it := s.Iterator(nil); ; {
			kind := it.Next()
			if kind == chunkenc.ValNone {
				require.NoError(n.t, it.Err())
				break
			}
			out[s.Labels().String()] = append(out[s.Labels().String()], show(it, kind))
		}
	}
	require.NoError(n.t, set.Err())
	return out
}

func show(it chunkenc.Iterator, kind chunkenc.ValueType) string {
	if kind != chunkenc.ValFloat {
		_, h := it.AtFloatHistogram(nil)
		return "histogram of " + fmt.Sprint(h.Count)
	}
	if _, v := it.At(); value.IsStaleNaN(v) {
		return "stale"
	} else {
		return fmt.Sprint(v)
	}
}

func leaderOf(t *testing.T, nodes []*scrapeNode) *scrapeNode {
	t.Helper()
	var leader *scrapeNode
	require.Eventually(t, func() bool {
		for _, n := range nodes {
			if n.IsLeader() {
				leader = n
				return true
			}
		}
		return false
	}, patience, 10*time.Millisecond)
	return leader
}
