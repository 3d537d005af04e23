// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/storage"
)

// A new node has the address that another member had when it joined, as pods have after a while. The configuration still
// says that this one is there.
func TestJoinUnderAnAddressThatIsFreeAgain(t *testing.T) {
	p := newProxy(t) // which holds the address
	address := p.ln.Addr().String()
	a := startNode(t, cluster.Config{NodeID: "a"})
	a.waitReady()
	join := func(id string) *testNode {
		n := startNodeWith(t, cluster.Config{NodeID: id, AdvertiseAddress: address, Peers: []string{a.GossipAddress()}}, 0, storage.Options{}, p)
		a.waitVoter(id)
		n.waitReady()
		return n
	}
	b := join("b")
	b.crash()
	b.cfg.AdvertiseAddress, b.proxy = "", nil
	b.back([]*testNode{a, b})
	b.waitReady()
	require.NotEqual(t, address, b.Address())

	c := join("c")
	nodes := []*testNode{a, b, c}
	for i, n := range nodes {
		n.mustWrite(i)
		// Also where gossip has never told of it.
		require.Equal(t, address, n.ConfiguredAddress("c"))
		for _, s := range n.Nodes(t.Context()) {
			if s.ID == "c" {
				require.Equal(t, address, s.RaftAddress)
			}
		}
	}
	a.transfer("c")
	for i, n := range nodes {
		n.mustWrite(3 + i)
		n.waitReady()
	}
	for _, n := range nodes {
		n.waitCount(6)
	}
}
