// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/fsm"
)

// transferStuck is how long Raft may answer "leadership transfer in progress" before the process must be restarted.
const transferStuck = 10 * time.Second

// transferTimeout bounds a transfer; Raft itself gives it one election timeout.
const transferTimeout = 5 * time.Second

// TransferLeadership hands the leadership to the voter that is furthest, and returns when this node no longer leads.
// It fails on a node that does not lead. Bounded by ctx and by 5 s. While it lasts, reads and writes that come here
// are tried again elsewhere.
func (n *Node) TransferLeadership(ctx context.Context) error {
	if !n.isLeader() {
		return errNotLeader
	}
	if !n.transferring.CompareAndSwap(false, true) {
		return errors.New("a leadership transfer is under way")
	}
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	err := n.await(ctx, n.successor(ctx))
	for err == nil && n.isLeader() && ctx.Err() == nil {
		sleep(ctx, 5*time.Millisecond)
	}
	n.transferring.Store(false)
	if err == nil && n.isLeader() {
		err = ctx.Err()
	}
	if err != nil {
		n.metrics.transfers.WithLabelValues("error").Inc()
		n.watchTransfer()
		return fmt.Errorf("leadership transfer: %w", err)
	}
	n.metrics.transfers.WithLabelValues("ok").Inc()
	return nil
}

// successor begins the transfer to the voter that is furthest of those that can lead; Raft's own choice knows nothing of
// disks that are full, of votes that are lost and of clocks that are wrong.
func (n *Node) successor(ctx context.Context) raft.Future {
	var best raft.Server
	var applied uint64
	servers := n.servers()
	reports := n.reports(ctx, voters(servers))
	for _, s := range servers {
		r, ok := reports[string(s.ID)]
		if ok && string(s.ID) != n.id && r.canLead() && r.AppliedIndex >= applied {
			best, applied = s, r.AppliedIndex
		}
	}
	if best.ID == "" {
		return n.raft.LeadershipTransfer()
	}
	return n.raft.LeadershipTransferToServer(best.ID, best.Address)
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
