// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"

	"github.com/deucaliondb/deucalion/fsm"
)

// Snapshot makes a Raft snapshot now.
func (n *Node) Snapshot(ctx context.Context) error {
	err := n.snapshotSoon(ctx)
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

// Offer gives an empty entry to Raft itself and waits for Raft's answer.
func (n *Node) Offer(ctx context.Context) error {
	return n.await(ctx, n.raft.Apply(fsm.EncodeNoop(), 0))
}

// ClusterID is what the log says.
func (n *Node) ClusterID() string { return n.clusterID() }

// CollectDigests fills in the results of a digest.
func (n *Node) CollectDigests(ctx context.Context, r *DigestReport) { n.collectDigests(ctx, r) }

// HoldTransfer makes this node behave as during a leadership transfer.
func (n *Node) HoldTransfer(on bool) { n.transferring.Store(on) }

// HoldSnapshots makes this node's snapshots wait, until release is called.
func (n *Node) HoldSnapshots() (release func()) {
	n.snapshotMu.Lock()
	return sync.OnceFunc(n.snapshotMu.Unlock)
}

// ListenAddress is where this node listens, whatever it advertises.
func (n *Node) ListenAddress() string { return n.mux.ln.Addr().String() }

// Connections counts those that others have made to this node.
func (n *Node) Connections() int {
	n.mux.mu.Lock()
	defer n.mux.mu.Unlock()
	return len(n.mux.conns)
}

// SetPatience changes how long a catch-up waits for a silent source.
func (n *Node) SetPatience(d time.Duration) { n.catchUp.patience = d }

// CatchUp is what the status says.
func (n *Node) CatchUp() *CatchUpStatus { return n.catchUp.status() }

// HoldLease makes this node behave as if another one fetched its newest snapshot, until release is called.
func (n *Node) HoldLease() (release func(), err error) {
	l, err := n.source.acquire(n.snapshots.newestID(), "test")
	if err != nil {
		return nil, err
	}
	return func() { n.source.release(l, 0); n.source.drop(0) }, nil
}

// LeadingTerm is the term that this node leads.
func (n *Node) LeadingTerm() (term uint64, ok bool) {
	term = n.raft.CurrentTerm()
	ok = n.isLeader()
	return term, ok && n.raft.CurrentTerm() == term
}

// LogEntry returns term and data of an entry of this node's log; ok is false when it is not there.
func (n *Node) LogEntry(i uint64) (l raft.Log, ok bool) {
	err := n.stores.log.GetLog(i, &l)
	return l, err == nil
}

// LogBounds are the first and the last index of this node's log.
func (n *Node) LogBounds() (first, last uint64) {
	first, _ = n.stores.log.FirstIndex()
	last, _ = n.stores.log.LastIndex()
	return first, last
}

// SetNetwork lets a test make this node's connections, and change its gossip.
func (c *Config) SetNetwork(dial func(ctx context.Context, addr string) (net.Conn, error), gossip func(*memberlist.Config) error) {
	c.hooks.dial, c.hooks.memberlist = dial, gossip
}

// SetLogFiles lets a test stand between the WAL and its files.
func (c *Config) SetLogFiles(files types.VFS) { c.hooks.files = files }

// SetSnapshotError lets a test refuse Raft snapshots.
func (c *Config) SetSnapshotError(refuse func() error) { c.hooks.snapshot = refuse }

// Promise asks this node for a promise, as the one that forms a cluster does.
func (n *Node) Promise(from string, group []string, form bool) error {
	return n.give(promiseRequest{From: from, Expect: len(group), Group: group, Form: form})
}

// DiskSpare tells whether this node takes no entries because others have room.
func (n *Node) DiskSpare() bool { return n.disk.spare.Load() }

// CaughtUp tells whether node id, had it no vote, could have one by what it says now.
func (n *Node) CaughtUp(ctx context.Context, id string) bool {
	return n.caughtUp(ctx, id, map[string]int{id: promoteChecks})
}

// SetFree makes a node that is started with c believe in free bytes on its disk.
func (c *Config) SetFree(free func() int64) {
	c.statfs = func(string) (int64, error) { return free(), nil }
}

// TidyImports removes what no log needs any more. Files that another member has just fetched count as never fetched.
func (n *Node) TidyImports() { n.imports.tidyOnce(importKeep, 0) }

// TidyImportsInUse is TidyImports as it is outside of tests.
func (n *Node) TidyImportsInUse() { n.imports.tidyOnce(importKeep, importGrace) }

// ServeImport answers another member that wants a file of an import.
func (n *Node) ServeImport(w http.ResponseWriter, r *http.Request) { n.imports.serve(w, r) }

// ConfiguredAddress is where this node would look for node id if gossip had never told of it.
func (n *Node) ConfiguredAddress(id string) string {
	b := addressBook{}
	b.raft.Store(n.raft)
	return b.lookup(id)
}
