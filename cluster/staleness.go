// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/deucaliondb/deucalion/fsm"
)

const (
	freshInterval = time.Second            // between two rounds
	freshHurry    = 50 * time.Millisecond  // until the first one has succeeded
	freshRetry    = 250 * time.Millisecond // after one that failed
	freshTimeout  = 900 * time.Millisecond // of one round
	freshPending  = 128                    // rounds whose index may be waiting to be applied
)

// freshness knows when this node's state was last complete: the start of the newest read-index round whose index has
// been applied here.
type freshness struct {
	fsm *fsm.FSM

	mu      sync.Mutex  // protects the following
	pending []freshMark // oldest first
	last    time.Time   // zero: never
}

type freshMark struct {
	start time.Time
	index uint64
}

func newFreshness(f *fsm.FSM) *freshness { return &freshness{fsm: f} }

// add takes in a finished round.
func (f *freshness) add(start time.Time, index uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pending) == freshPending { // far behind: which of the newest is lost does not matter
		f.pending = f.pending[:freshPending-1]
	}
	f.pending = append(f.pending, freshMark{start, index})
}

// age returns the time since the state was known to be complete; known is false if it never was.
func (f *freshness) age() (age time.Duration, known bool) {
	applied, _ := f.fsm.Applied()
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.pending) > 0 && f.pending[0].index <= applied {
		f.last = f.pending[0].start
		f.pending = f.pending[1:]
	}
	if f.last.IsZero() {
		return 0, false
	}
	return time.Since(f.last), true
}

func (f *freshness) seconds() float64 {
	age, known := f.age()
	if !known {
		return math.Inf(1)
	}
	return age.Seconds()
}

// Staleness returns how far this node's state may be behind the leader's: the age of the newest read-index round
// whose index has been applied here. math.MaxInt64 before the first. Does not block.
func (n *Node) Staleness() time.Duration {
	age, known := n.fresh.age()
	if !known {
		return math.MaxInt64
	}
	return age
}

// keepFresh runs a round every second, on the leader too, and at once when the leader has changed.
func (n *Node) keepFresh(ctx context.Context) {
	for ctx.Err() == nil {
		changed := n.leaderChanged()
		start := time.Now()
		rctx, cancel := context.WithTimeout(ctx, freshTimeout)
		index, err := n.readIndexOnce(rctx)
		cancel()
		if err == nil {
			n.fresh.add(start, index)
		}
		wait := freshInterval
		if err != nil {
			wait = freshRetry
		}
		if _, known := n.fresh.age(); !known {
			wait = freshHurry
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-changed:
		}
		t.Stop()
	}
}
