// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage/remote"
)

// errAbandoned ends the retries of a queue that nobody waits for any more.
var errAbandoned = errors.New("shipping has been stopped here")

// metadataKey marks the context of requests with metadata, which are not from a shard.
type metadataKey struct{}

// shipClient sends the requests of one queue. It knows what the queue does not tell: whether it has thrown data away. A
// queue does that when it changes the number of its shards, or ends, and the old shards are not done within the flush
// deadline. It then cancels the context that all their requests share.
type shipClient struct {
	inner     atomic.Pointer[remote.WriteClient]
	abandoned context.Context
	abandon   context.CancelFunc
	repeats   atomic.Bool        // what is sent may have been sent before, by remote write 1.0: see resend
	refused   prometheus.Counter // samples that were refused alone

	mu     sync.Mutex      // protects the following
	shards context.Context // of the newest shards that have sent something
	lost   bool
}

var _ remote.WriteClient = (*shipClient)(nil)

func newShipClient(c remote.WriteClient, refused prometheus.Counter) *shipClient {
	x := &shipClient{refused: refused}
	x.inner.Store(&c)
	x.abandoned, x.abandon = context.WithCancel(context.Background())
	return x
}

// swap takes another client for the same remote store, with new secrets, say.
func (c *shipClient) swap(inner remote.WriteClient) { c.inner.Store(&inner) }

// Name implements remote.WriteClient.
func (c *shipClient) Name() string { return (*c.inner.Load()).Name() }

// Endpoint implements remote.WriteClient.
func (c *shipClient) Endpoint() string { return (*c.inner.Load()).Endpoint() }

// Store implements remote.WriteClient.
func (c *shipClient) Store(ctx context.Context, req []byte, attempt int) (remote.WriteResponseStats, error) {
	data := ctx.Value(metadataKey{}) == nil
	if data {
		c.seeShards(ctx)
	}
	if c.abandoned.Err() != nil {
		return remote.WriteResponseStats{}, errAbandoned
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.abandoned, cancel)()
	stats, err := (*c.inner.Load()).Store(ctx, req, attempt)
	if data && c.repeats.Load() && refusedForGood(err) {
		stats, err = remote.WriteResponseStats{}, c.resend(ctx, req, attempt)
	}
	if err != nil && c.abandoned.Err() != nil {
		err = errAbandoned // not to be tried again
	}
	return stats, err
}

// seeShards notes the shards that send. New ones begin when the old ones have ended.
func (c *shipClient) seeShards(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shards != nil && c.shards.Done() != ctx.Done() && c.shards.Err() != nil {
		c.lost = true
	}
	c.shards = ctx
}

// lossy tells whether the queue has thrown data away, or may have.
func (c *shipClient) lossy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost || c.abandoned.Err() != nil || c.shards != nil && c.shards.Err() != nil
}

// untilAbandoned is a log handler that falls silent with the queue: an abandoned one reports each batch as failed.
type untilAbandoned struct {
	slog.Handler
	abandoned context.Context
}

// Enabled implements slog.Handler.
func (h untilAbandoned) Enabled(ctx context.Context, l slog.Level) bool {
	return h.abandoned.Err() == nil && h.Handler.Enabled(ctx, l)
}

// WithAttrs implements slog.Handler.
func (h untilAbandoned) WithAttrs(as []slog.Attr) slog.Handler {
	return untilAbandoned{h.Handler.WithAttrs(as), h.abandoned}
}

// WithGroup implements slog.Handler.
func (h untilAbandoned) WithGroup(name string) slog.Handler {
	return untilAbandoned{h.Handler.WithGroup(name), h.abandoned}
}
