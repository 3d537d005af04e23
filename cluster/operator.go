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

const changeGrace = time.Second

// changeRequest is what an operator asks of the leader.
type changeRequest struct {
	ID string `json:"id"` // the node that it is about
	By string `json:"by"` // the node that the operator has asked
}

type changeReply struct {
	Old   string `json:"old,omitempty"`   // who led before a transfer; "" if there was nothing to do
	Index uint64 `json:"index,omitempty"` // of the new configuration
}

type changeFunc func(context.Context, changeRequest) (changeReply, error)

// atLeader has the leader do what here does on it, and tries again as Propose does until ctx ends (10 s if it has no
// deadline). After more than one try an earlier one may have done it.
func (n *Node) atLeader(ctx context.Context, call, id string, here changeFunc) (reply changeReply, tries int, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, proposeTimeout)
		defer cancel()
	}
	r := changeRequest{ID: id, By: n.id}
	for tries = 1; ; tries++ {
		changed := n.leaderChanged()
		reply, err = n.tryLeader(ctx, call, r, here, changed)
		if err == nil || final(err) || errors.Is(err, ErrUnknownNode) || errors.Is(err, ErrRefused) || errors.Is(err, ErrTransfer) {
			return reply, tries, err
		}
		if ctx.Err() != nil {
			return changeReply{}, tries, fmt.Errorf("%w: %w (last attempt: %w)", ErrNoLeader, context.Cause(ctx), err)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-n.stopped:
		case <-time.After(backoff(tries)):
		}
	}
}

// tryLeader asks the leader of this moment. When that changes, which is what a transfer is for, its answer is waited for
// no longer than changeGrace: it may be frozen, and its connection silent.
func (n *Node) tryLeader(ctx context.Context, call string, r changeRequest, here changeFunc, changed <-chan struct{}) (reply changeReply, err error) {
	switch {
	case n.isStopped():
		return reply, ErrStopped
	case n.fsmFailed(): // out of Raft: this node will never learn who leads
		return reply, fmt.Errorf("%w: %w", ErrFSMFailed, ErrNoLeader)
	case n.isLeader():
		return here(ctx, r)
	}
	leader, ok := n.Leader()
	if !ok || leader == n.id { // Raft has just changed its mind
		return reply, errors.New("no leader is known")
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-changed:
			sleep(ctx, changeGrace)
		case <-n.stopped:
		case <-ctx.Done():
		}
		cancel()
	})
	err = n.client.callJSON(ctx, leader, call, r, &reply)
	return reply, err
}

// atLeaderHandler takes what atLeader sends. It never forwards.
func (n *Node) atLeaderHandler(here changeFunc) rpcHandler {
	return func(ctx context.Context, body []byte) ([]byte, error) {
		var r changeRequest
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		switch {
		case n.isStopped():
			return nil, ErrStopped
		case n.fsmFailed():
			return nil, ErrFSMFailed
		case !n.isLeader():
			return nil, errNotLeader
		}
		reply, err := here(ctx, r)
		if err != nil {
			return nil, err
		}
		return jsonReply(reply)
	}
}
