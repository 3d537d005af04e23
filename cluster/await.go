// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	awaitTimeout = 5 * time.Minute // when the caller's context has no deadline
	awaitPoll    = 5 * time.Second // of one question to another node; asked again until the caller's time is over
	// awaitGrace is how long a member that gossip takes for alive may be out of reach before it counts as dead:
	// gossip needs some seconds to notice a death.
	awaitGrace = 15 * time.Second
)

// AwaitAll returns when every live member has applied index and has finished the local work of task (the id of a clean
// or user snapshot entry; "" = none). Dead members are not waited for and are no error, but named in away: such a one
// does the work when it comes back, if it replays the entry. If it is caught up by a snapshot instead, it cleans what it
// has kept, and never makes the user snapshot. The error names the members that failed, or had not finished when ctx
// ended (5 min without a deadline).
func (n *Node) AwaitAll(ctx context.Context, index uint64, task string) (away []string, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, awaitTimeout)
		defer cancel()
	}
	// A node that lags does not know yet of a member that was added just before.
	if err := n.awaitHere(ctx, awaitRequest{Index: index}); err != nil {
		return nil, fmt.Errorf("node %s: %w", n.id, err)
	}
	servers := n.servers()
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { errs[i] = n.awaitNode(ctx, string(s.ID), awaitRequest{index, task}) })
	}
	wg.Wait()
	for i, s := range servers {
		switch {
		case errors.Is(errs[i], errDead):
			away = append(away, string(s.ID))
		case errs[i] != nil:
			err = errors.Join(err, fmt.Errorf("node %s: %w", s.ID, errs[i]))
		}
	}
	return away, err
}

type awaitRequest struct {
	Index uint64 `json:"index"`
	Task  string `json:"task,omitempty"`
}

// awaitReply tells a task that failed (Err) from one that is not done yet.
type awaitReply struct {
	Done bool   `json:"done"`
	Err  string `json:"err,omitempty"`
}

func (n *Node) awaitNode(ctx context.Context, id string, r awaitRequest) error {
	if id == n.id {
		return n.awaitHere(ctx, r)
	}
	var reply awaitReply
	return n.pollMember(ctx, id, rpcAwait, r, &reply, func() (bool, error) {
		if reply.Err != "" {
			return true, errors.New(reply.Err)
		}
		return reply.Done, nil
	})
}

// errDead: gossip holds a member that does not answer for dead.
var errDead = errors.New("out of reach")

// pollMember repeats a call, which the member answers within awaitPoll, until done is true of the reply, gossip holds the
// member for dead (errDead), it has been out of reach for awaitGrace, or ctx ends.
func (n *Node) pollMember(ctx context.Context, id, call string, request, reply any, done func() (bool, error)) error {
	var lost time.Time // since when the member has been out of reach
	for ctx.Err() == nil {
		pctx, cancel := context.WithTimeout(ctx, awaitPoll+dialTimeout)
		err := n.client.callJSON(pctx, id, call, request, reply)
		cancel()
		if err == nil {
			if ok, err := done(); ok {
				return err
			}
			lost = time.Time{}
			continue
		}
		if _, alive := n.gossip.member(id); !alive {
			return fmt.Errorf("%w: %w", errDead, err)
		}
		if lost.IsZero() {
			lost = time.Now()
		}
		if time.Since(lost) > awaitGrace {
			return fmt.Errorf("out of reach: %w", err)
		}
		sleep(ctx, retryMax)
	}
	return ctx.Err()
}

// awaitHere waits on this node.
func (n *Node) awaitHere(ctx context.Context, r awaitRequest) error {
	if n.fsmFailed() {
		return fmt.Errorf("%w: %w", ErrFSMFailed, n.fsm.Err())
	}
	if err := n.fsm.Wait(ctx, r.Index); err != nil {
		return err
	}
	if r.Task == "" {
		return nil
	}
	return n.fsm.WaitTask(ctx, r.Task)
}

func (n *Node) handleAwait(ctx context.Context, body []byte) ([]byte, error) {
	var r awaitRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, awaitPoll)
	defer cancel()
	err := n.awaitHere(ctx, r)
	switch {
	case err == nil:
		return jsonReply(awaitReply{Done: true})
	case ctx.Err() != nil:
		return jsonReply(awaitReply{})
	default:
		return jsonReply(awaitReply{Err: err.Error()})
	}
}
