// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/fault"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/netns"
)

// Each system for comparison takes writes, is scraped for, is read back, and goes on after a stop and a kill -9; nothing is left of it.
func TestPeers(t *testing.T) {
	if err := netns.Check(); err != nil {
		t.Skip(err)
	}
	for i, tc := range []struct {
		name  string
		start func(fault.PeerOptions) (*fault.Peer, error)
		nodes int
	}{
		{"stock", fault.NewStock, 1},
		{"pair", fault.NewStockPair, 2},
		{"victoria", fault.NewVictoriaMetrics, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := fault.PeerOptions{Number: 250 + i, Dir: t.TempDir()}
			p, err := tc.start(o)
			if errors.Is(err, exec.ErrNotFound) {
				t.Skip(err)
			}
			require.NoError(t, err)
			defer func() { _ = p.Close() }()
			require.Len(t, p.Nodes, tc.nodes)
			s, err := fault.NewScrapes(p.Listen, 2)
			require.NoError(t, err)
			t.Cleanup(func() { _ = s.Close() })
			require.NoError(t, p.Configure("scrape_configs:\n"+s.ScrapeConfig()))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			require.NoError(t, p.Start(ctx))
			checkScrapes(t, p, s)
			for i := range p.Nodes {
				checkNode(t, p, i)
			}
			checkBalancer(t, p)
			if t.Failed() {
				return
			}
			require.NoError(t, p.Close())
			requireGone(t, p)
		})
	}
}

// checkScrapes waits until scrapes are stored.
func checkScrapes(t *testing.T, p *fault.Peer, s *fault.Scrapes) {
	t.Helper()
	every := &prompb.LabelMatcher{Type: prompb.LabelMatcher_EQ, Name: "__name__", Value: "fault_scrapes_total"}
	harness.Await(t, time.Minute, "scrapes", func(ctx context.Context) error {
		for _, r := range p.Readers {
			data, err := r.Read(ctx, 0, 1<<50, every)
			if err != nil {
				return err
			}
			if len(data) < 2 || data.Len() < 4 {
				return fmt.Errorf("%s has %d samples", r.Name, data.Len())
			}
		}
		return nil
	})
	found, err := s.Check(t.Context(), p.Readers, p.Cluster, 10)
	require.NoError(t, err)
	require.Empty(t, found)
	require.Positive(t, s.Summary().Stored)
}

// checkNode writes to a node, reads back before and after a stop and a kill -9, and takes it off its network.
func checkNode(t *testing.T, p *fault.Peer, i int) {
	t.Helper()
	n := p.Nodes[i]
	cl := n.Client()
	defer cl.Close()
	now := time.Now().UnixMilli()
	ls := client.Labels("__name__", "peer_test", "node", n.Name, "text", `"quoted\`)
	require.NoError(t, cl.Write(t.Context(), []prompb.TimeSeries{{Labels: ls, Samples: []prompb.Sample{
		{Timestamp: now - 60_000, Value: 1 << 40}, {Timestamp: now, Value: 0.1},
	}}}))
	require.NoError(t, cl.Write(t.Context(), []prompb.TimeSeries{{Labels: ls, Samples: []prompb.Sample{{Timestamp: now - 120_000, Value: 3}}}}), "late")
	want := client.Data{client.Key(ls): {
		{T: now - 120_000, Bits: math.Float64bits(3)}, {T: now - 60_000, Bits: math.Float64bits(1 << 40)}, {T: now, Bits: math.Float64bits(0.1)},
	}}
	matchers := []*prompb.LabelMatcher{
		{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: "peer_.+"},
		{Type: prompb.LabelMatcher_EQ, Name: "text", Value: `"quoted\`},
		{Type: prompb.LabelMatcher_NEQ, Name: "node", Value: "x"},
		{Type: prompb.LabelMatcher_NRE, Name: "node", Value: "y.*"},
	}
	read := func() client.Data {
		got, err := p.Readers[i].Read(t.Context(), 0, 1<<50, matchers...)
		require.NoError(t, err)
		return got
	}
	require.Empty(t, client.Diff(want, read(), 10))
	got, err := p.Readers[i].Read(t.Context(), now-60_000, now-1, matchers...)
	require.NoError(t, err)
	require.Equal(t, 1, got.Len())

	require.Positive(t, n.PID())
	for _, end := range []func() error{n.Stop, n.Kill} {
		require.NoError(t, end())
		require.Zero(t, n.PID())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, p.Start(ctx))
		require.Empty(t, client.Diff(want, read(), 10), "a stop has written it to the disk")
	}

	enter, err := n.Enter()
	require.NoError(t, err)
	out, err := exec.Command(enter[0], append(enter[1:], "ip", "addr")...).CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), n.Addrs[0])
	require.NoError(t, n.Unplug())
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = p.Readers[i].Read(ctx, 0, 1<<50, matchers...)
	require.Error(t, err)
	require.NoError(t, n.Plug())
	require.NoError(t, p.Start(t.Context()))
}

// checkBalancer asks through the balancer while one node after the other is dead.
func checkBalancer(t *testing.T, p *fault.Peer) {
	t.Helper()
	if p.Balancer == "" {
		return
	}
	cl := client.New(p.Balancer)
	defer cl.Close()
	for _, n := range p.Nodes {
		require.NoError(t, n.Kill())
		harness.Await(t, time.Minute, "the balancer", func(ctx context.Context) error {
			for range 2 * len(p.Nodes) {
				if _, err := cl.Query(ctx, "up", time.Now().UnixMilli()); err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(t, p.Start(t.Context()))
		// It takes the node up again before the next one dies.
		harness.Await(t, time.Minute, "both nodes behind the balancer", func(ctx context.Context) error {
			seen := map[string]bool{}
			for range 10 {
				r, err := cl.Query(ctx, `last_over_time(peer_test[10m])`, time.Now().UnixMilli())
				if err != nil {
					return err
				}
				seen[r.String()] = true
			}
			if len(seen) < len(p.Nodes) {
				return errors.New("one node answers")
			}
			return nil
		})
	}
}

// requireGone insists that nothing is left of the disks and the network.
func requireGone(t *testing.T, p *fault.Peer) {
	t.Helper()
	for _, n := range p.Nodes {
		require.False(t, n.Running())
		var disk, parent syscall.Stat_t
		require.NoError(t, syscall.Stat(n.Dir, &disk))
		require.NoError(t, syscall.Stat(filepath.Dir(n.Dir), &parent))
		require.Equal(t, parent.Dev, disk.Dev, "%s is still mounted", n.Dir)
	}
	out, err := exec.Command("ip", "-br", "addr").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), p.Listen+"/")
}
