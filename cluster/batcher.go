// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"sync"
)

// batcher lets any number of callers share one call of fn that begins after they came. The shared call is not bound to
// any caller's context: one that leaves must not spoil it for the rest.
type batcher struct {
	ctx context.Context
	fn  func(context.Context) (uint64, error)
	wg  sync.WaitGroup

	mu     sync.Mutex // protects the following
	next   *round     // not begun; nil if nobody waits
	busy   bool       // a goroutine is working
	closed bool       // wait was called
}

type round struct {
	done    chan struct{}
	waiters int // who came; for the tests
	index   uint64
	err     error
}

// newBatcher returns a batcher whose calls end with ctx.
func newBatcher(ctx context.Context, fn func(context.Context) (uint64, error)) *batcher {
	return &batcher{ctx: ctx, fn: fn}
}

// do waits for a call of fn that began after do was called.
func (b *batcher) do(ctx context.Context) (uint64, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return 0, ErrStopped
	}
	if b.next == nil {
		b.next = &round{done: make(chan struct{})}
	}
	r := b.next
	r.waiters++
	if !b.busy {
		b.busy = true
		b.wg.Go(b.run)
	}
	b.mu.Unlock()
	select {
	case <-r.done:
		return r.index, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// run works until nobody waits.
func (b *batcher) run() {
	for {
		b.mu.Lock()
		r := b.next
		b.next = nil
		b.busy = r != nil
		b.mu.Unlock()
		if r == nil {
			return
		}
		r.index, r.err = b.fn(b.ctx)
		close(r.done)
	}
}

// wait refuses further calls and waits for the goroutine; the owner has ended ctx.
func (b *batcher) wait() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.wg.Wait()
}
