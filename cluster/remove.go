// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/fsm"
)

// errChanging: the leader makes one change of the members at a time, so that what it has checked still holds.
var errChanging = errors.New("another change of the members is under way")

// RemovePeer takes node id out of the Raft configuration, for ever or until it comes back: the leader adds any node that
// gossip finds alive. It works on any node and returns when the change is committed, with the log index of the new
// configuration (0 if the answer was lost on the way). Bounded by ctx, 10 s if it has no deadline. Errors: ErrUnknownNode; ErrRefused for
// a node that is alive or leads, and when too few of the voters left could vote; ErrNoLeader, ErrStopped.
func (n *Node) RemovePeer(ctx context.Context, id string) (index uint64, err error) {
	member := isMember(n.servers(), id)
	reply, tries, err := n.atLeader(ctx, rpcRemove, id, n.removeHere)
	if member && tries > 1 && errors.Is(err, ErrUnknownNode) {
		return 0, nil
	}
	return reply.Index, err
}

func isMember(servers []raft.Server, id string) bool {
	return slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == id })
}

// removeHere is RemovePeer on the leader.
func (n *Node) removeHere(ctx context.Context, r changeRequest) (reply changeReply, err error) {
	if n.transferring.Load() {
		return reply, errNotLeader
	}
	if !n.changing.TryLock() {
		return reply, errChanging
	}
	defer n.changing.Unlock()
	err = n.mayRemove(ctx, r.ID)
	if errors.Is(err, ErrUnknownNode) {
		// An earlier try may have put its removal into the log, and then it is a member until that is committed.
		if e := n.change(ctx, n.raft.Apply(fsm.EncodeNoop(), changeTimeout)); e != nil {
			err = fmt.Errorf("commit that node %s is no member: %w", r.ID, e)
		}
	}
	if err != nil {
		n.logger.Info("A node is not removed", "id", r.ID, "asked_on", r.By, "err", err)
		return reply, err
	}
	n.logger.Warn("Removing a node from the configuration, on request", "id", r.ID, "asked_on", r.By)
	f := n.raft.RemoveServer(raft.ServerID(r.ID), 0, changeTimeout)
	if err := n.change(ctx, f); err != nil {
		return reply, fmt.Errorf("remove node %s: %w", r.ID, err)
	}
	reply.Index = f.Index()
	n.logger.Info("Node removed", "id", r.ID, "asked_on", r.By, "index", reply.Index, "voters", voters(n.servers()))
	return reply, nil
}

// mayRemove says why node id must stay.
func (n *Node) mayRemove(ctx context.Context, id string) error {
	servers := n.servers()
	switch {
	case !isMember(servers, id):
		return fmt.Errorf("%w: %s is not in the configuration", ErrUnknownNode, id)
	case id == n.id:
		return fmt.Errorf("%w: node %s leads; move the leadership to another node and stop this one first", ErrRefused, id)
	}
	ids := voters(servers)
	reports := n.reports(ctx, append(slices.Clone(ids), id))
	_, answers := reports[id]
	if _, alive := n.gossip.member(id); alive || answers {
		return fmt.Errorf("%w: node %s is alive and would be added again; stop it first, and try again when the others have noticed", ErrRefused, id)
	}
	if !slices.Contains(ids, id) {
		return nil
	}
	left := slices.DeleteFunc(ids, func(v string) bool { return v == id })
	able := 0
	for _, v := range left {
		// One that has lost its memory has no vote: without it the cluster might never elect again.
		if r, ok := reports[v]; ok && r.Recovering == "" && r.Err == "" {
			able++
		}
	}
	if able < len(left)/2+1 {
		return fmt.Errorf("%w: without node %s only %d of %d voters could vote, which is no majority", ErrRefused, id, able, len(left))
	}
	return nil
}
