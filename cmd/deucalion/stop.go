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

// How long each duty may take to end. Together with the rest of a stop they fit in the 90 s that deploy/ tells of.
const (
	shipTimeout     = 8 * time.Second // the next leader sends the rest
	rulesTimeout    = 3 * time.Second // nobody evaluates meanwhile: the next leader makes up for that
	handOverTimeout = 4 * time.Second
	scrapeTimeout   = 10 * time.Second
	reloadTimeout   = 5 * time.Second // all that a reload waits for has ended by then
)

// stopper ends something that this node does without being asked.
type stopper struct {
	within time.Duration
	run    func(context.Context) error
}

// onStop adds a stopper, which is run before those that were added earlier. Each has its own time: what hangs must not
// take it from the others.
func (n *node) onStop(within time.Duration, run func(context.Context) error) {
	n.stoppers = append(n.stoppers, stopper{within, run})
}

// stopDuties runs the stoppers, last to first, while this node can still write to the log.
func (n *node) stopDuties() error {
	var errs []error
	for i := len(n.stoppers) - 1; i >= 0; i-- {
		ctx, cancel := context.WithTimeout(context.Background(), n.stoppers[i].within)
		errs = append(errs, n.stoppers[i].run(ctx))
		cancel()
	}
	return errors.Join(errs...)
}
