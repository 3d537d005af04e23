// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"

	"github.com/hashicorp/raft"
)

// watchLeader turns Raft's observations into leaderChanged.
func (n *Node) watchLeader(ctx context.Context) {
	// Raft drops observations that nobody takes (non-blocking); one in the buffer is enough, for any of them only
	// says "look again".
	ch := make(chan raft.Observation, 1)
	o := raft.NewObserver(ch, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	n.raft.RegisterObserver(o)
	defer n.raft.DeregisterObserver(o)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ch:
		}
		n.metrics.leaderChanges.Inc()
		n.leaderMu.Lock()
		close(n.leaderMoved)
		n.leaderMoved = make(chan struct{})
		n.leaderMu.Unlock()
	}
}

// leaderChanged returns a channel that is closed when the leader changes after this call.
func (n *Node) leaderChanged() <-chan struct{} {
	n.leaderMu.Lock()
	defer n.leaderMu.Unlock()
	return n.leaderMoved
}
