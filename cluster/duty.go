// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import "context"

// RunDuty runs fn whenever this node leads, until Shutdown: from the moment when its state has all that earlier leaders
// have acknowledged. The context ends when the leadership is lost, and fn must return then; it does not run twice at
// once on this node, and on two nodes only for as long as the old one needs to notice. When fn returns early, it is
// run again in the next term.
func (n *Node) RunDuty(fn func(ctx context.Context)) {
	n.loop(func(ctx context.Context) {
		for {
			term := n.awaitTerm(ctx)
			if term == nil {
				return
			}
			fn(term)
			<-term.Done()
		}
	})
}

// awaitTerm returns the context of a term that this node leads, nil when ctx ends.
func (n *Node) awaitTerm(ctx context.Context) context.Context {
	for {
		n.leaderMu.Lock()
		term, changed := n.term, n.termMoved
		n.leaderMu.Unlock()
		if term != nil && term.Err() == nil {
			return term
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// setTerm tells the duties of a term that this node leads.
func (n *Node) setTerm(ctx context.Context) {
	n.leaderMu.Lock()
	defer n.leaderMu.Unlock()
	n.term = ctx
	close(n.termMoved)
	n.termMoved = make(chan struct{})
}

// IsLeader tells whether this node takes itself for the leader.
func (n *Node) IsLeader() bool { return n.isLeader() }
