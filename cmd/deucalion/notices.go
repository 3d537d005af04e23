// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/deucaliondb/deucalion/cluster"
)

// What /api/v1/notifications shows of a node's life, besides Prometheus's own text about a failed reload.
const (
	startingUp   = "Deucalion is starting and catching up with the cluster."
	shuttingDown = "Deucalion is shutting down and gracefully stopping all operations."
)

// awaitStart takes the notice of the start back once the node has caught up.
func (n *node) awaitStart() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		for {
			// These two come after the catching up, and tell of it.
			err := n.cluster.Ready()
			if err == nil || errors.Is(err, cluster.ErrDiskFull) || errors.Is(err, cluster.ErrClockOff) {
				n.notices.DeleteNotification(startingUp)
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	})
	n.onStop(0, func(context.Context) error { // it ends at once
		cancel()
		wg.Wait()
		return nil
	})
}
