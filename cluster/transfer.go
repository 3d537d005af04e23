// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/fsm"
)

// transferStuck is how long Raft may answer "leadership transfer in progress" before the process must be restarted.
const transferStuck = 10 * time.Second

// transferTimeout bounds a transfer; Raft itself gives it one election timeout.
const transferTimeout = 5 * time.Second

// TransferLeadership moves the leadership to the voter id, with "" to the one that is furthest, and returns when this node
// knows the new leader. It works on any node; that id leads already is no error. Bounded by ctx, 10 s if it has no
// deadline. Errors: ErrUnknownNode and ErrRefused (nothing was done), ErrTransfer (it was tried: there is a leader, perhaps the
// same one), ErrNoLeader, ErrStopped, ErrFSMFailed.
func (n *Node) TransferLeadership(ctx context.Context, id string) error {
	reply, _, err := n.atLeader(ctx, rpcTransfer, id, n.transferHere)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	for {
		leader, ok := n.Leader()
		switch {
		case ok && id == "" && leader != reply.Old, ok && leader == id:
			return nil
		case n.isStopped():
			return ErrStopped
		case n.fsmFailed():
			return ErrFSMFailed
		case ctx.Err() != nil && ok:
			return fmt.Errorf("%w: node %s leads", ErrTransfer, leader)
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", ErrNoLeader, ctx.Err())
		}
		sleep(ctx, 5*time.Millisecond)
	}
}

// transferHere is TransferLeadership on the leader.
func (n *Node) transferHere(ctx context.Context, r changeRequest) (reply changeReply, err error) {
	if r.ID == n.id {
		return reply, nil
	}
	to, err := n.successor(ctx, r.ID)
	if err != nil {
		return reply, err
	}
	n.logger.Info("Moving the leadership, on request", "to", to.ID, "asked_on", r.By)
	err = n.handTo(ctx, to)
	if err != nil && !errors.Is(err, ErrRefused) && !errors.Is(err, errNotLeader) && !final(err) {
		err = fmt.Errorf("%w: %s", ErrTransfer, err) // by its text: one error travels
	}
	return changeReply{Old: n.id}, err
}

// handOver hands the leadership to the voter that is furthest, or to whom Raft chooses when none answers.
func (n *Node) handOver(ctx context.Context) error {
	to, _ := n.successor(ctx, "")
	return n.handTo(ctx, to)
}

// handTo hands the leadership to one voter, without an id to that of Raft's choice, and returns when this node no longer
// leads. It fails on a node that does not lead. Bounded by ctx and by 5 s. While it lasts, reads and writes that come here
// are tried again elsewhere.
func (n *Node) handTo(ctx context.Context, to raft.Server) error {
	if !n.isLeader() {
		return errNotLeader
	}
	if !n.transferring.CompareAndSwap(false, true) {
		return fmt.Errorf("%w: a leadership transfer is under way", ErrRefused)
	}
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	var f raft.Future
	if to.ID == "" {
		f = n.raft.LeadershipTransfer()
	} else {
		f = n.raft.LeadershipTransferToServer(to.ID, to.Address)
	}
	err := n.await(ctx, f)
	for err == nil && n.isLeader() {
		if err = ctx.Err(); err == nil {
			sleep(ctx, 5*time.Millisecond)
		}
	}
	n.transferring.Store(false)
	if err != nil {
		n.metrics.transfers.WithLabelValues("error").Inc()
		n.watchTransfer()
		return fmt.Errorf("leadership transfer: %w", err)
	}
	n.metrics.transfers.WithLabelValues("ok").Inc()
	return nil
}

// successor returns the voter id, or with "" the one that is furthest of those that can lead; Raft's own choice knows
// nothing of disks that are full, of votes that are lost and of clocks that are wrong.
func (n *Node) successor(ctx context.Context, id string) (best raft.Server, err error) {
	servers := n.servers()
	reports := n.reports(ctx, voters(servers))
	if id != "" {
		return n.namedSuccessor(id, servers, reports)
	}
	var applied uint64
	for _, s := range servers {
		r, ok := reports[string(s.ID)]
		if ok && string(s.ID) != n.id && r.unfit() == "" && r.AppliedIndex >= applied {
			best, applied = s, r.AppliedIndex
		}
	}
	if best.ID == "" {
		return best, fmt.Errorf("%w: no other voter is alive and able to lead", ErrRefused)
	}
	return best, nil
}

func (n *Node) namedSuccessor(id string, servers []raft.Server, reports map[string]nodeReport) (raft.Server, error) {
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return string(s.ID) == id })
	if i < 0 {
		return raft.Server{}, fmt.Errorf("%w: %s is not in the configuration", ErrUnknownNode, id)
	}
	r, answers := reports[id]
	why := r.unfit()
	switch {
	case servers[i].Suffrage != raft.Voter:
		why = "is no voter"
	case !answers:
		why = "does not answer"
	case why == "" && r.AppliedIndex+promoteLag < n.raft.CommitIndex():
		why = fmt.Sprintf("is %d entries behind", n.raft.CommitIndex()-r.AppliedIndex)
	}
	if why != "" {
		return raft.Server{}, fmt.Errorf("%w: node %s %s", ErrRefused, id, why)
	}
	return servers[i], nil
}

// unfit says why the node cannot lead, "" if it can.
func (r nodeReport) unfit() string {
	switch {
	case r.Err != "":
		return "is broken: " + r.Err
	case r.Recovering != "":
		return "has no vote: " + r.Recovering
	case r.Disk != "":
		return "has too little room on its disk"
	case r.ClockOff:
		return "has a wrong clock"
	}
	return ""
}

// watchTransfer sees to it that a failed transfer ends, see checkStuck. A node that wins again later is watched by
// markTerm.
func (n *Node) watchTransfer() {
	n.loop(func(ctx context.Context) {
		var stuck time.Time
		for ctx.Err() == nil && n.isLeader() {
			err := n.await(ctx, n.raft.Apply(fsm.EncodeNoop(), time.Second))
			if n.checkStuck(&stuck, err); !inProgress(err) {
				return
			}
			sleep(ctx, retryMax)
		}
	})
}
