// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// applied is the index up to which entries are applied and visible, with those
// who wait for it to grow.
type applied struct {
	index, term atomic.Uint64

	// mu protects the following.
	mu      sync.Mutex
	waiters []waiter
}

type waiter struct {
	index uint64
	done  chan struct{}
}

func (a *applied) set(index, term uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.term.Store(term)
	a.index.Store(index)
	a.waiters = slices.DeleteFunc(a.waiters, func(w waiter) bool {
		if w.index <= index {
			close(w.done)
		}
		return w.index <= index
	})
}

func (a *applied) wait(ctx context.Context, index uint64, closed <-chan struct{}) error {
	if a.index.Load() >= index {
		return nil
	}
	w := waiter{index, make(chan struct{})}
	a.mu.Lock()
	if a.index.Load() >= index {
		a.mu.Unlock()
		return nil
	}
	a.waiters = append(a.waiters, w)
	a.mu.Unlock()
	var err error
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-closed:
		err = ErrClosed
	}
	a.mu.Lock()
	a.waiters = slices.DeleteFunc(a.waiters, func(x waiter) bool { return x.done == w.done })
	a.mu.Unlock()
	return err
}
