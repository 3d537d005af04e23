// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// drainTimeout bounds how long requests may go on that are under way when the node stops.
	drainTimeout = 10 * time.Second
	// shutdownTimeout bounds the hand-over of the leadership and the last snapshot.
	shutdownTimeout = 60 * time.Second
)

// stop takes the node down, also a half-started one: first nobody sends it requests any more, then those under way
// end, then the cluster loses it, then the state is closed and the data directory let go.
func (n *node) stop() error {
	var errs []error
	if n.cluster != nil {
		n.cluster.StopServing()
	}
	errs = append(errs, n.stopDuties())
	if n.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		if err := n.server.stop(ctx); err != nil {
			n.logger.Warn("Requests were cut off", "err", err)
		}
	}
	if n.cluster != nil {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		if err := n.cluster.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop cluster: %w", err))
		}
	}
	for i := len(n.closers) - 1; i >= 0; i-- {
		errs = append(errs, n.closers[i]())
	}
	return errors.Join(errs...)
}

// dutiesTimeout bounds the end of scraping, rules and what else works for the cluster in the background.
const dutiesTimeout = 20 * time.Second

// stopDuties ends what this node does without being asked, last to first, while it can still write to the log.
func (n *node) stopDuties() error {
	ctx, cancel := context.WithTimeout(context.Background(), dutiesTimeout)
	defer cancel()
	var errs []error
	for i := len(n.stoppers) - 1; i >= 0; i-- {
		errs = append(errs, n.stoppers[i](ctx))
	}
	return errors.Join(errs...)
}
