// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/hashicorp/raft"
)

// await waits for a future of Raft, or until ctx ends. When Raft ends first, or has ended, the error wraps ErrStopped, or
// ErrFSMFailed if that is why.
func (n *Node) await(ctx context.Context, f raft.Future) error {
	f = n.ending(f)
	done := make(chan error, 1)
	go func() { done <- f.Error() }() // ends with Raft at the latest
	select {
	case err := <-done:
		switch {
		case !errors.Is(err, raft.ErrRaftShutdown):
			return err
		case n.fsmFailed():
			return fmt.Errorf("%w: %w", ErrFSMFailed, err)
		}
		return fmt.Errorf("%w: %w", ErrStopped, err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ending makes a future that nobody has waited for yet answer when Raft ends.
//
// Workaround: Raft 1.7.3 forgets what is in its queues when it ends, entries that were proposed and entries that were
// committed and not applied, and Error of their futures never returns. Each future has a channel that would end it, but
// for those that callers get Raft leaves it nil. Cost: one look-up by reflection a future. Test:
// TestForgottenFutures. May go when Raft answers them or sets the channel.
func (n *Node) ending(f raft.Future) raft.Future {
	v := reflect.Indirect(reflect.ValueOf(f))
	if v.Kind() != reflect.Struct {
		return f
	}
	dead := reflect.ValueOf(n.dead)
	if c := v.FieldByName("ShutdownCh"); c.IsValid() && c.CanSet() && c.Type() == dead.Type() && c.IsNil() {
		c.Set(dead)
	}
	return f
}

// lazyFuture calls Raft only in Error: Snapshot blocks until Raft's snapshot goroutine is free.
type lazyFuture func() error

// Error implements raft.Future.
func (f lazyFuture) Error() error { return f() }
