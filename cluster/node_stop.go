// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Bounds of the steps of a graceful stop. A step that runs out of time is logged and the next one follows.
const (
	stopTransfer = 3 * time.Second
	stopSnapshot = 30 * time.Second
	// stopRaft is longer than a call of Raft's transport: when a peer's connection hangs, Raft ends with the call. Found
	// by TestPartitions.
	stopRaft  = raftTimeout + 5*time.Second
	stopLeave = 2 * time.Second
)

// Shutdown ends this node's part: unready, leadership handed over, proposals refused, Raft snapshot (the next start
// then replays nothing), Raft, network, disk, gossip. It waits for all goroutines. ctx shortens the waits; the
// node is stopped afterwards in any case. Later calls return what the first one returned.
func (n *Node) Shutdown(ctx context.Context) error {
	n.stopOnce.Do(func() { n.stopErr = n.shutdown(ctx) })
	return n.stopErr
}

func (n *Node) shutdown(ctx context.Context) error {
	n.StopServing()
	n.HandOver(ctx)
	close(n.stopped)
	n.stopLoops()
	n.lastSnapshot(ctx)
	var errs []error
	if err := n.stopRaft(ctx); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, n.closeParts(), n.gossip.close(stopLeave))
	n.logger.Info("Cluster node stopped")
	return errors.Join(errs...)
}

// HandOver gives the leadership to another node, if this one has it and there is another, within 3 s. When it fails the
// others will elect.
func (n *Node) HandOver(ctx context.Context) {
	if !n.isLeader() || len(voters(n.servers())) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stopTransfer)
	defer cancel()
	if err := n.handOver(ctx); err != nil {
		n.logger.Warn("Leadership was not handed over, the others will elect", "err", err)
	}
}

func (n *Node) lastSnapshot(ctx context.Context) {
	// A leader takes no writes any more here, and the others elect only when its Raft has ended. Another node that stops may
	// have handed over to this one just now.
	n.HandOver(ctx)
	if n.isLeader() && len(voters(n.servers())) > 1 {
		n.logger.Warn("No snapshot before the stop, for this node still leads; the next start will replay the log")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stopSnapshot)
	defer cancel()
	index, _ := n.snapshots.newest()
	if applied, _ := n.fsm.Applied(); applied <= index || n.fsmFailed() {
		return
	}
	err := n.snapshotSoon(ctx)
	if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		n.logger.Warn("No snapshot before the stop, the next start will replay the log", "err", err)
	}
}

// stopRaft ends Raft. A hung disk must not keep the process alive, so this wait is bounded too.
func (n *Node) stopRaft(ctx context.Context) error {
	n.persistStop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopRaft)
	defer cancel()
	defer n.raftEnded()
	if err := n.await(ctx, n.endRaft()); err != nil {
		return fmt.Errorf("raft did not stop: %w", err)
	}
	return nil
}

// endRaft begins the end of Raft, once. Every call returns the same future: Raft's own second Shutdown answers before
// the first one is done.
func (n *Node) endRaft() raft.Future {
	n.raftOnce.Do(func() { n.raftEnd = n.raft.Shutdown() })
	return n.raftEnd
}

// raftEnded ends the waits for Raft's futures.
func (n *Node) raftEnded() { n.deadOnce.Do(func() { close(n.dead) }) }
