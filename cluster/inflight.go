// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// crowdedWait is how long a proposal waits for room before ErrOverloaded.
	crowdedWait = 100 * time.Millisecond
	// minWeight is counted for a small entry, which costs more memory than its bytes.
	minWeight = 4 << 10
)

// inflight bounds the bytes of the entries that are being proposed on this node: by callers who wait, by other nodes
// through this one as their leader, and inside Raft, whose queues know only numbers of entries.
type inflight struct {
	max     int64
	sem     *semaphore.Weighted
	metrics *metrics
}

func newInflight(maxBytes int64, m *metrics) *inflight {
	return &inflight{max: maxBytes, sem: semaphore.NewWeighted(maxBytes), metrics: m}
}

// ticket is one entry's share. It is given back when every holder has released it.
type ticket struct {
	of      *inflight
	weight  int64
	holders atomic.Int32
}

// admit waits a moment for room.
func (f *inflight) admit(ctx context.Context, size int) (*ticket, error) {
	t := &ticket{of: f, weight: min(max(int64(size), minWeight), f.max)}
	t.holders.Store(1)
	if !f.sem.TryAcquire(t.weight) {
		wait, cancel := context.WithTimeout(ctx, crowdedWait)
		defer cancel()
		if f.sem.Acquire(wait, t.weight) != nil {
			return nil, fmt.Errorf("%w: at most %d", ErrOverloaded, f.max)
		}
	}
	f.metrics.inflight.Add(float64(t.weight))
	return t, nil
}

// hold adds a holder; the caller is one already.
func (t *ticket) hold() { t.holders.Add(1) }

func (t *ticket) release() {
	if t.holders.Add(-1) == 0 {
		t.of.metrics.inflight.Sub(float64(t.weight))
		t.of.sem.Release(t.weight)
	}
}
