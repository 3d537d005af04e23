// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

// All duties that can fail have a counter from the start, for rates to see the first failure.
func TestDutiesAreCountedFromZero(t *testing.T) {
	t.Parallel()
	n := startNode(t, cluster.Config{NodeID: "n", BootstrapExpect: 1})
	all, err := n.cfg.Registerer.(*prometheus.Registry).Gather()
	require.NoError(t, err)
	var duties []string
	for _, family := range all {
		if family.GetName() == "deucalion_cluster_duty_failures_total" {
			for _, m := range family.GetMetric() {
				duties = append(duties, m.GetLabel()[0].GetValue())
			}
		}
	}
	require.ElementsMatch(t, []string{"settings", "retention", "membership", "digest"}, duties)
}

// A duty runs on the leader, has everything that was acknowledged before, and moves with the leadership.
func TestDutyFollowsTheLeader(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	var running atomic.Int32
	type start struct {
		node  *testNode
		count int
	}
	began := make(chan start, 64)
	for _, n := range nodes {
		n.RunDuty(func(ctx context.Context) {
			running.Add(1)
			defer running.Add(-1)
			began <- start{n, n.count()}
			<-ctx.Done()
		})
	}
	// next is the duty on the leader, which is not old. On a busy machine others may have led for a moment.
	next := func(old *testNode) start {
		for end := time.After(30 * time.Second); ; {
			select {
			case s := <-began:
				if id, ok := s.node.Leader(); ok && id == s.node.ID() && s.node != old {
					return s
				}
			case <-end:
				t.Fatal("the duty does not run on the leader")
			}
		}
	}
	next(nil)
	_, rest := leaderOf(t, nodes)
	for i := range 50 {
		rest[0].mustWrite(i)
	}
	leader, _ := leaderOf(t, nodes)
	leader.transfer("")
	second := next(leader)
	require.Equal(t, 50, second.count, "what was acknowledged before the duty began")
	require.Eventually(t, func() bool { return running.Load() == 1 }, 60*time.Second, 5*time.Millisecond)
	second.node.crash()
	next(second.node)
}

// Only a leader with a majority behind it is confirmed.
func TestConfirmLeader(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	leader, rest := leaderOf(t, nodes)
	require.NoError(t, leader.ConfirmLeader(t.Context()))
	require.ErrorIs(t, rest[0].ConfirmLeader(t.Context()), cluster.ErrNoLeader)
	rest[0].stop()
	require.NoError(t, leader.ConfirmLeader(t.Context()))
	rest[1].crash()
	require.ErrorIs(t, leader.ConfirmLeader(t.Context()), cluster.ErrNoLeader, "before or after it has noticed")
}

func TestAttributesSpread(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	changed := nodes[2].MembersChanged()
	nodes[0].SetAttribute("scrape", "1")
	nodes[0].SetAttribute("gone", "1")
	nodes[0].SetAttribute("gone", "")
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told")
	}
	for _, n := range nodes {
		require.Eventually(t, func() bool {
			text := ""
			for _, m := range n.Members() {
				text += fmt.Sprint(m.ID, m.Attributes)
			}
			return text == "n0map[scrape:1]n1map[]n2map[]"
		}, 60*time.Second, 10*time.Millisecond, "%v", n.Members())
	}
	nodes[1].crash()
	require.Eventually(t, func() bool { return len(nodes[2].Members()) == 2 }, 60*time.Second, 10*time.Millisecond)
}

func TestAskPeer(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := nodes[0].AskPeer(ctx, "n1", http.MethodGet, "/x", nil, nil)
	require.ErrorIs(t, err, cluster.ErrNoHandler)
	nodes[1].HandlePeers(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL, r.Header.Get("X-Test"), body)
	}))
	for _, from := range nodes {
		resp, err := from.AskPeer(ctx, "n1", http.MethodPost, "/api/v1/targets?state=active", http.Header{"X-Test": {"a"}}, strings.NewReader("b"))
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, resp.Body.Close())
		require.NoError(t, err)
		require.Equal(t, http.StatusTeapot, resp.StatusCode)
		require.Equal(t, "POST /api/v1/targets?state=active a b", string(text))
	}
	_, err = nodes[0].AskPeer(ctx, "nobody", http.MethodGet, "/", nil, nil)
	require.Error(t, err)
}
