// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/internal/plant"
)

// roundTimeout bounds one read-index round; nothing in it waits for a disk.
const roundTimeout = 2 * time.Second

// ReadIndex returns an index such that a state which has applied it contains every write that was acknowledged before
// ReadIndex was called, anywhere in the cluster. It works on any node; wait with fsm.Wait, then read. Callers share
// rounds. Retries until ctx ends (10 s if it has no deadline); the error then wraps ErrNoLeader.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, proposeTimeout)
		defer cancel()
	}
	start := time.Now()
	defer func() { n.metrics.readTime.Observe(time.Since(start).Seconds()) }()
	for attempt := 0; ; attempt++ {
		changed := n.leaderChanged()
		index, err := n.readIndexOnce(ctx)
		if err == nil || final(err) {
			return index, err
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("%w: %w (last attempt: %w)", ErrNoLeader, context.Cause(ctx), err)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-n.stopped:
		case <-time.After(backoff(attempt)):
		}
	}
}

func (n *Node) readIndexOnce(ctx context.Context) (uint64, error) {
	switch {
	case n.isStopped():
		return 0, ErrStopped
	case n.fsmFailed():
		return 0, fmt.Errorf("%w: %w", ErrFSMFailed, ErrNoLeader)
	case n.isLeader():
		return n.reads.do(ctx)
	case plant.StaleLinearizable:
		index, _ := n.fsm.Applied()
		return index, nil
	}
	return n.asks.do(ctx)
}

// askLeader is a follower's shared question.
func (n *Node) askLeader(ctx context.Context) (uint64, error) {
	leader, ok := n.Leader()
	if !ok || leader == n.id {
		return 0, errors.New("no leader is known")
	}
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	b, err := n.client.call(ctx, leader, rpcReadIndex, nil)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("read index of %d bytes from %s", len(b), leader)
	}
	return binary.BigEndian.Uint64(b), nil
}

// handleReadIndex answers a follower; on another follower it does not ask on.
func (n *Node) handleReadIndex(ctx context.Context, _ []byte) ([]byte, error) {
	if !n.isLeader() {
		return nil, errNotLeader
	}
	index, err := n.reads.do(ctx)
	if err != nil {
		return nil, err
	}
	return binary.BigEndian.AppendUint64(nil, index), nil
}

// leaderRound is one round on the leader.
//
//  1. An entry of this term has been applied here (node_lead.go proposes one on winning), so the commit index covers
//     every entry that earlier leaders acknowledged.
//  2. Take the commit index.
//  3. Ask the voters for their terms. When a majority, this node included, is still in this term, no later leader
//     was elected before the question was asked: its majority would share a voter with ours, and a voter takes
//     the new term before it votes.
//
// Raft's VerifyLeader is not used for step 3. It counts non-voters, so that a leader cut off from both voters with a
// non-voter in reach believes in itself; and it counts answers to heartbeats that were sent before the call, so that
// a leader which was stopped (SIGSTOP, a paused virtual machine) and wakes up with such an answer in its socket
// serves a stale read although others lead. It waits for Raft's main loop, too, and so for the disk.
func (n *Node) leaderRound(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	index, err := n.confirmedIndex(ctx)
	if err != nil {
		n.metrics.readRounds.WithLabelValues("error").Inc()
		return 0, err
	}
	n.metrics.readRounds.WithLabelValues("ok").Inc()
	return index, nil
}

func (n *Node) confirmedIndex(ctx context.Context) (uint64, error) {
	term := n.raft.CurrentTerm()
	if !n.isLeader() || n.transferring.Load() {
		return 0, errNotLeader
	}
	if _, applied := n.fsm.Applied(); applied != term {
		return 0, fmt.Errorf("%w: nothing of term %d applied yet", errNotLeader, term)
	}
	index := n.raft.CommitIndex()
	if plant.UnconfirmedLeader {
		return index, nil
	}
	if err := n.confirmTerm(ctx, term); err != nil {
		return 0, err
	}
	if n.raft.CurrentTerm() != term || n.raft.State() != raft.Leader {
		return 0, errNotLeader
	}
	return index, nil
}

// confirmTerm asks all other voters at once and returns when a majority has answered with term.
func (n *Node) confirmTerm(ctx context.Context, term uint64) error {
	ids := voters(n.servers())
	need := len(ids)/2 + 1
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // those who are late are not waited for
	answers := make(chan error, len(ids))
	for _, id := range ids {
		if id == n.id {
			answers <- nil
			continue
		}
		go func() { answers <- n.askTerm(ctx, id, term) }()
	}
	var errs []error
	for range ids {
		select {
		case err := <-answers:
			if err != nil {
				errs = append(errs, err)
			} else if need--; need == 0 {
				return nil
			}
		case <-ctx.Done():
			errs = append(errs, ctx.Err())
		}
		if len(errs) > len(ids)-(len(ids)/2+1) {
			return fmt.Errorf("leadership not confirmed: %w", errors.Join(errs...))
		}
	}
	return fmt.Errorf("leadership not confirmed: %w", errors.Join(errs...))
}

func (n *Node) askTerm(ctx context.Context, id string, term uint64) error {
	b, err := n.client.call(ctx, id, rpcTerm, nil)
	if err != nil {
		return err
	}
	if len(b) != 8 {
		return fmt.Errorf("term of %d bytes from %s", len(b), id)
	}
	if t := binary.BigEndian.Uint64(b); t != term {
		return fmt.Errorf("%w: %s is in term %d, not %d", errNotLeader, id, t, term)
	}
	return nil
}

// handleTerm answers a leader's round.
func (n *Node) handleTerm(context.Context, []byte) ([]byte, error) {
	term, err := n.amnesia.term(n.raft.CurrentTerm())
	return binary.BigEndian.AppendUint64(nil, term), err
}
