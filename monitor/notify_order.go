// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"sync"

	"github.com/prometheus/prometheus/storage"
)

// commitFirst lets rules notify of what fires only when the samples that say so are committed: else a leader that dies in
// between leaves an alert behind that nobody knows of, and the next one fires it again with another start. A commit that
// fails holds nothing back: the disks may be full, and that is what the alert is about.
//
// A rule hands over its alerts, then opens an appender with the same context, and commits it.
type commitFirst struct {
	storage.Appendable

	mu   sync.Mutex // protects the following
	held map[context.Context]func()
}

// hold keeps send back until the rule that evaluates with ctx has committed.
func (c *commitFirst) hold(ctx context.Context, send func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[ctx] = send
}

// Appender implements storage.Appendable.
func (c *commitFirst) Appender(ctx context.Context) storage.Appender {
	app := c.Appendable.Appender(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	send := c.held[ctx]
	if send == nil {
		return app
	}
	delete(c.held, ctx)
	return sendingAppender{app, send}
}

type sendingAppender struct {
	storage.Appender
	send func()
}

// Commit implements storage.AppenderTransaction.
func (a sendingAppender) Commit() error {
	defer a.send()
	return a.Appender.Commit()
}
