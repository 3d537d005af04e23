// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/internal/plant"
)

const (
	proposeTimeout = 10 * time.Second // when the caller's context has no deadline

	retryMin = 10 * time.Millisecond
	retryMax = 300 * time.Millisecond
)

// Propose replicates entry, which nobody may change any more: Raft's caches keep it.
// It works on any node and returns when the entry is committed and applied on the leader. Elections, lost
// connections and everything else that passes are retried until ctx ends (10 s if it has no deadline); the error then
// wraps ErrNoLeader, and whether the entry is in the log is not known. Other errors: ErrOverloaded and ErrDiskFull (nothing
// proposed), ErrTooLarge, ErrStopped, ErrFSMFailed.
func (n *Node) Propose(ctx context.Context, entry []byte) (fsm.Result, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, proposeTimeout)
		defer cancel()
	}
	start := time.Now()
	res, err := n.propose(ctx, entry)
	n.metrics.proposeTime.Observe(time.Since(start).Seconds())
	n.metrics.proposals.WithLabelValues(proposeResult(err)).Inc()
	return res, err
}

func proposeResult(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrOverloaded):
		return "overloaded"
	case errors.Is(err, ErrDiskFull):
		return "disk_full"
	case errors.Is(err, ErrNoLeader):
		return "no_leader"
	default:
		return "error"
	}
}

func (n *Node) propose(ctx context.Context, entry []byte) (fsm.Result, error) {
	if len(entry) > MaxEntryBytes {
		return fsm.Result{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(entry), MaxEntryBytes)
	}
	if err := n.levelReached(entry); err != nil {
		return fsm.Result{}, err
	}
	ticket, err := n.inflight.admit(ctx, len(entry))
	if err != nil {
		return fsm.Result{}, err
	}
	defer ticket.release()
	for attempt := 0; ; attempt++ {
		changed := n.leaderChanged()
		res, err := n.proposeOnce(ctx, entry, ticket, changed)
		if err == nil || final(err) {
			return res, err
		}
		if ctx.Err() != nil {
			return fsm.Result{}, fmt.Errorf("%w: %w (last attempt: %w)", ErrNoLeader, context.Cause(ctx), err)
		}
		n.metrics.retries.Inc()
		select { // a new leader ends the wait
		case <-ctx.Done():
		case <-changed:
		case <-n.stopped:
		case <-time.After(backoff(attempt)):
		}
	}
}

// proposeOnce tries the leader of this moment.
func (n *Node) proposeOnce(ctx context.Context, entry []byte, t *ticket, changed <-chan struct{}) (fsm.Result, error) {
	switch {
	case n.isStopped():
		return fsm.Result{}, ErrStopped
	case n.fsmFailed(): // out of Raft: this node will never learn who leads
		return fsm.Result{}, fmt.Errorf("%w: %w", ErrFSMFailed, ErrNoLeader)
	case n.isLeader():
		return n.apply(ctx, entry, t)
	}
	return n.forward(ctx, entry, changed)
}

// final errors are not cured by another attempt. That another node is stopping or broken is: it will not lead long.
func final(err error) bool {
	if errors.Is(err, ErrOverloaded) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrDiskFull) {
		return true
	}
	return (errors.Is(err, ErrStopped) || errors.Is(err, ErrFSMFailed)) && !errors.Is(err, errRemote)
}

// errRemote marks what another node said of itself: its end is not ours.
var errRemote = errors.New("remote")

// apply proposes on the leader itself. It holds the ticket until Raft is done with the entry, also when the caller
// has left: the bytes are in Raft's queues as long as that.
func (n *Node) apply(ctx context.Context, entry []byte, t *ticket) (fsm.Result, error) {
	deadline, ok := ctx.Deadline()
	timeout := proposeTimeout
	if ok {
		timeout = time.Until(deadline)
	}
	if timeout <= 0 { // by the clock; the timer of ctx may be late, and ctx.Err still be nil
		return fsm.Result{}, context.DeadlineExceeded
	}
	if err := n.disk.admit(entry); err != nil {
		return fsm.Result{}, err
	}
	t.hold()
	done := make(chan error, 1)
	var f raft.ApplyFuture
	go func() {
		defer t.release()
		f = n.raft.Apply(entry, timeout)
		done <- n.await(context.Background(), f)
	}()
	if plant.AckBeforeCommit {
		return fsm.Result{Index: n.raft.LastIndex()}, nil
	}
	select {
	case err := <-done:
		if err != nil {
			return fsm.Result{}, err
		}
	case <-ctx.Done():
		return fsm.Result{}, ctx.Err()
	}
	switch r := f.Response().(type) {
	case fsm.Result:
		return r, nil
	case error:
		return fsm.Result{}, r
	default:
		return fsm.Result{}, fmt.Errorf("unexpected response %T", r)
	}
}

func backoff(attempt int) time.Duration {
	d := min(retryMin<<min(attempt, 10), retryMax)
	return d/2 + rand.N(d)
}

func (n *Node) isStopped() bool {
	select {
	case <-n.stopped:
		return true
	default:
		return false
	}
}

// inProgress tells raft#696's symptom from other refusals.
func inProgress(err error) bool { return errors.Is(err, raft.ErrLeadershipTransferInProgress) }
