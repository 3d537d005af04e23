// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/fsm"
)

// lead runs the leader's tasks whenever this node leads.
func (n *Node) lead(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case leads := <-n.raft.LeaderCh():
			for leads {
				leads = n.leadTerm(ctx)
			}
		}
	}
}

// leadTerm runs them until the leadership is lost, and returns whether it has come back meanwhile.
func (n *Node) leadTerm(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if !n.markTerm(ctx) || !n.nameCluster(ctx) {
			return
		}
		n.setTerm(ctx)
		wg.Go(func() { n.keepMembers(ctx) })
		wg.Go(func() { n.keepDigests(ctx) })
		n.doDuties(ctx)
	})
	leads := false
	select {
	case <-ctx.Done():
	case leads = <-n.raft.LeaderCh():
	}
	cancel()
	wg.Wait()
	return leads
}

// markTerm proposes an empty command: read indexes are valid once the FSM has seen an entry of this term, and FSMs see
// neither Raft's own no-op nor its barriers. Returns false if the leadership is gone.
func (n *Node) markTerm(ctx context.Context) bool {
	var stuck time.Time
	for ctx.Err() == nil && n.isLeader() {
		err := n.await(ctx, n.raft.Apply(fsm.EncodeNoop(), time.Second))
		if err == nil {
			return true
		}
		n.checkStuck(&stuck, err)
		sleep(ctx, retryMin)
	}
	return false
}

// checkStuck is the watchdog of hashicorp/raft#696: after an interrupted leadership transfer a leader may refuse
// everything with "transfer in progress" for ever, while its heartbeats keep the others from electing another.
// Cost: an empty command after each election and each failed transfer. Test: TestTransferWatchdog. May go when the
// issue is closed.
func (n *Node) checkStuck(since *time.Time, err error) {
	switch {
	case !inProgress(err):
		*since = time.Time{}
	case since.IsZero():
		*since = time.Now()
	case time.Since(*since) > transferStuck:
		n.fatal(fmt.Errorf("leadership transfer does not end (raft#696): %w", err))
	}
}

// nameCluster gives a new cluster its id, with the settings of the first leader's configuration file.
func (n *Node) nameCluster(ctx context.Context) bool {
	for ctx.Err() == nil {
		// The no-op has been applied, so what the log says of the id is known here.
		if n.clusterID() != "" {
			return true
		}
		s := n.wantedSettings()
		s.ClusterID = randomHex(8)
		n.logger.Info("Naming the new cluster", "cluster_id", s.ClusterID)
		if _, err := n.leaderPropose(ctx, fsm.EncodeSettings(s)); err != nil {
			sleep(ctx, retryMax)
		}
	}
	return false
}

// leaderPropose proposes as the leader or not at all: what a leader decides must not be forwarded to its successor.
func (n *Node) leaderPropose(ctx context.Context, entry []byte) (fsm.Result, error) {
	if n.raft.State() != raft.Leader {
		return fsm.Result{}, errNotLeader
	}
	if err := n.levelReached(entry); err != nil {
		return fsm.Result{}, err
	}
	t, err := n.inflight.admit(ctx, len(entry))
	if err != nil {
		return fsm.Result{}, err
	}
	defer t.release()
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	return n.apply(ctx, entry, t)
}
