// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/deucaliondb/deucalion/fsm"
)

// forward sends entry to the leader. The attempt ends early when another leader is elected: the old one may be
// frozen, and its connection silent, for longer than the caller has time.
func (n *Node) forward(ctx context.Context, entry []byte, changed <-chan struct{}) (fsm.Result, error) {
	leader, ok := n.Leader()
	if !ok || leader == n.id { // Raft has just changed its mind
		return fsm.Result{}, errors.New("no leader is known")
	}
	n.metrics.forwarding.Inc()
	defer n.metrics.forwarding.Dec()
	actx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-changed:
			cancel()
		case <-n.stopped:
			cancel()
		case <-stop:
		}
	}()
	b, err := n.client.call(actx, leader, rpcPropose, entry)
	if err != nil {
		return fsm.Result{}, err
	}
	var res fsm.Result
	if err := res.UnmarshalBinary(b); err != nil {
		return fsm.Result{}, fmt.Errorf("answer of %s: %w", leader, err)
	}
	return res, nil
}

// handlePropose takes what another node forwards. It never forwards again: with two nodes that take each other for
// the leader an entry would go round.
func (n *Node) handlePropose(ctx context.Context, entry []byte) ([]byte, error) {
	switch {
	case n.isStopped():
		return nil, ErrStopped
	case n.fsmFailed():
		return nil, ErrFSMFailed
	case !n.isLeader():
		return nil, errNotLeader
	}
	ticket, err := n.inflight.admit(ctx, len(entry))
	if err != nil {
		return nil, err
	}
	defer ticket.release()
	res, err := n.apply(ctx, entry, ticket)
	if err != nil {
		return nil, err
	}
	return res.MarshalBinary()
}
