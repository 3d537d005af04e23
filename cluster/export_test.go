// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import "context"

// Snapshot makes a Raft snapshot now.
func (n *Node) Snapshot(ctx context.Context) error {
	err := n.snapshot(ctx)
	n.setTrailing()
	return err
}

// Crash stops the node as kill -9 would: no transfer, no snapshot, no farewell.
func (n *Node) Crash() {
	n.StopServing()
	close(n.stopped)
	n.stopLoops()
	_ = n.stopRaft(context.Background())
	_ = n.closeParts()
	_ = n.gossip.close(0)
	n.stopOnce.Do(func() {})
}

// FirstLogIndex is where this node's log begins.
func (n *Node) FirstLogIndex() uint64 {
	i, _ := n.stores.log.FirstIndex()
	return i
}

// ClusterID is what the log says.
func (n *Node) ClusterID() string { return n.clusterID() }

// HoldTransfer makes this node behave as during a leadership transfer.
func (n *Node) HoldTransfer(on bool) { n.transferring.Store(on) }

// Promise asks this node for a promise, as the one that forms a cluster does.
func (n *Node) Promise(from string, group []string, form bool) error {
	return n.give(promiseRequest{From: from, Expect: len(group), Group: group, Form: form})
}

// SetFree makes a node that is started with c believe in free bytes on its disk.
func (c *Config) SetFree(free func() int64) {
	c.statfs = func(string) (int64, error) { return free(), nil }
}
