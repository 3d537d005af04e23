// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

const (
	membersEvery  = time.Second
	changeTimeout = 5 * time.Second
	// A non-voter is promoted when it has been within promoteLag entries of the leader promoteChecks times in a
	// row: a voter that lags would hold up every commit as soon as another one fails.
	promoteLag    = 256
	promoteChecks = 3
)

// keepMembers is the leader's reconciliation of the Raft configuration with gossip: new members become non-voters,
// those that have caught up become voters. It removes nobody: a member that is silent may be back in a minute, with its
// vote. That is for an operator to decide, see RemovePeer.
//
// Changed addresses are not written into the configuration. Nobody needs them there: every node looks addresses up in
// gossip, then in what it noted itself (gossip_seen.go), and only then in the configuration. And raft v1.7.3 has a
// data race there: startStopReplication replaces a follower's Server while updateLastAppended reads it unlocked.
func (n *Node) keepMembers(ctx context.Context) {
	good := make(map[string]int) // id -> checks passed in a row
	tick(ctx, membersEvery, func() {
		if n.transferring.Load() {
			return
		}
		if err := n.reconcile(ctx, good); err != nil && ctx.Err() == nil {
			n.metrics.dutyFailures.WithLabelValues("membership").Inc()
			n.logger.Warn("Membership not updated, trying again", "err", err)
		}
	})
}

// reconcile makes at most one change; the next one follows in a second.
func (n *Node) reconcile(ctx context.Context, good map[string]int) error {
	if !n.changing.TryLock() {
		return nil
	}
	defer n.changing.Unlock()
	known := make(map[string]raft.Server)
	for _, s := range n.servers() {
		known[string(s.ID)] = s
	}
	ours := n.clusterID()
	for _, m := range n.gossip.members() {
		s, ok := known[m.ID]
		switch {
		case !ok && m.knownLevel() < n.fsm.Settings().MinVersion:
			if n.gossip.limit.allow("too old " + m.ID) {
				n.logger.Error("A node is too old to join, upgrade it", "id", m.ID, "version", m.Version,
					"knows_level", m.knownLevel(), "cluster_level", n.fsm.Settings().MinVersion)
			}
		case !ok && (m.mayJoin(ours) || n.emptied(ctx, m)):
			n.logger.Info("Adding a node as non-voter", "id", m.ID, "address", m.RaftAddress)
			return n.change(ctx, n.raft.AddNonvoter(raft.ServerID(m.ID), m.configured(known), 0, changeTimeout))
		case ok && s.Suffrage != raft.Voter && n.caughtUp(ctx, m.ID, good):
			delete(good, m.ID)
			n.logger.Info("A node has caught up and becomes a voter", "id", m.ID)
			return n.change(ctx, n.raft.AddVoter(s.ID, s.Address, 0, changeTimeout))
		}
	}
	return nil
}

// configured is the address under which m enters the configuration. Raft takes none twice, and another member, which has
// moved on, may stand there with it: then m's id goes before it, as in those that addressBook.ServerAddr gives.
func (m member) configured(known map[string]raft.Server) raft.ServerAddress {
	address := raft.ServerAddress(m.RaftAddress)
	for _, s := range known {
		if s.Address == address {
			return raft.ServerAddress(m.ID) + "@" + address
		}
	}
	return address
}

// mayJoin: a fresh node, or one that was of this cluster before. One with state that has not told its cluster id yet
// is asked again a second later.
func (m member) mayJoin(cluster string) bool {
	return m.ClusterID == cluster || m.ClusterID == "" && !m.HasState
}

// emptied tells whether m has an empty log and only seems to have state: it knows a term, because a leader has spoken to
// it before it was a member. Raft does that once more after the removal of a node, which may have been wiped meanwhile.
// One that forms a cluster of its own is not recovering.
func (n *Node) emptied(ctx context.Context, m member) bool {
	if m.ClusterID != "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, membersEvery)
	defer cancel()
	r, err := n.report(ctx, m.ID)
	return err == nil && r.Recovering != "" && r.LastIndex == 0 && len(r.Voters) == 0
}

func (n *Node) change(ctx context.Context, f raft.IndexFuture) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	return n.await(ctx, f)
}

func (n *Node) caughtUp(ctx context.Context, id string, good map[string]int) bool {
	ctx, cancel := context.WithTimeout(ctx, membersEvery)
	defer cancel()
	r, err := n.report(ctx, id)
	unfit := err != nil || r.Err != "" || r.Recovering != "" || r.Disk == diskCritical.String() // which takes no entry
	if unfit || r.AppliedIndex == 0 || r.AppliedIndex+promoteLag < n.raft.CommitIndex() {
		delete(good, id)
		return false
	}
	good[id]++
	return good[id] >= promoteChecks
}
