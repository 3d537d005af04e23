// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

// A follower that lags, and does not know of a new member yet, waits for it and compares it all the same.
func TestAskedOnAFollowerThatLags(t *testing.T) {
	t.Parallel()
	a := startNode(t, cluster.Config{NodeID: "a"})
	a.waitReady()
	join := func(id string, p *proxy) *testNode {
		cfg := cluster.Config{NodeID: id, Peers: []string{a.GossipAddress()}}
		if p != nil {
			cfg.AdvertiseAddress = p.ln.Addr().String()
		}
		n := startNodeWith(t, cfg, 0, storage.Options{}, p)
		a.waitVoter(id)
		n.waitReady()
		return n
	}
	p := newProxy(t)
	b, nodes := join("b", p), []*testNode{a, join("c", nil)}
	waitLevel(t, nodes)
	p.deaf.Store(true)
	p.block()
	p.to(b.ListenAddress())
	nodes = append(nodes, b, join("d", nil))
	res, err := a.Propose(t.Context(), fsm.EncodeDigest(fsm.Digest{ID: "digest", Hurry: true}))
	require.NoError(t, err)

	failed, report := make(chan error, 1), make(chan *cluster.DigestReport, 1)
	go func() {
		_, err := b.AwaitAll(t.Context(), res.Index, "no such task")
		failed <- err
	}()
	go func() {
		r := &cluster.DigestReport{ID: "digest", Index: res.Index}
		b.CollectDigests(t.Context(), r)
		report <- r
	}()
	require.Never(t, func() bool { return len(failed)+len(report) > 0 }, 300*time.Millisecond, 10*time.Millisecond)
	p.deaf.Store(false)
	err, r := <-failed, <-report
	for _, n := range nodes {
		require.ErrorContains(t, err, "node "+n.ID())
	}
	require.Len(t, r.Nodes, len(nodes))
	for _, d := range r.Nodes {
		require.NotNil(t, d.Result, "%+v", d)
	}
}
