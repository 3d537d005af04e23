// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deucaliondb/deucalion/test/client"
)

// Load says what StartWriters does.
type Load struct {
	Targets  []*client.Client // each attempt goes to a random one
	Balancer string           // URL of those of the targets that are a load balancer; "": none is
	Writers  int              // concurrent ones, each with series of its own
	Series   int              // of each writer; every fifth is of histograms, unless Floats
	Floats   bool
	Samples  int           // per series in one request
	Interval time.Duration // between the requests of a writer; 0 means as fast as acknowledged
	Late     time.Duration // samples are up to so old, in no order; 0 means in order and new
	Extras   bool          // each request brings an exemplar and metadata, too; needs times in order
	Acked    func()        // called after each acknowledgement, if not nil; it must not block
	Seed     uint64        // of the choice of targets
}

// attempts is how often a writer sends one request before it leaves its fate unknown and goes on.
const attempts = 60

// attemptTimeout is how long a writer waits for one answer before it asks another node.
const attemptTimeout = 2 * time.Second

// Writers is a running load.
type Writers struct {
	ledger *Ledger
	load   Load
	stop   context.CancelFunc
	gate   sync.RWMutex // a request holds it shared, Pause holds it whole
	paused atomic.Bool
	done   sync.WaitGroup
}

// StartWriters starts a load that runs until Stop.
func (l *Ledger) StartWriters(load Load) *Writers {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Writers{ledger: l, load: load, stop: cancel}
	for i := range load.Writers {
		var mine []*series
		for j := range load.Series {
			mine = append(mine, l.add(j%5 == 4 && !load.Floats))
		}
		rng := rand.New(rand.NewPCG(load.Seed, uint64(i)))
		w.done.Go(func() { w.write(ctx, mine, rng) })
	}
	return w
}

// Stop ends the load and waits for the writers; attempts under way are broken off, their fate is unknown.
// A test that fails in a pause may call it as well.
func (w *Writers) Stop() {
	w.stop()
	w.Resume()
	w.done.Wait()
}

// Finish ends the load once every request under way has its outcome.
func (w *Writers) Finish() {
	w.gate.Lock()
	w.stop()
	w.gate.Unlock()
	w.done.Wait()
}

// Pause waits until no request is under way and keeps the writers still until Resume.
func (w *Writers) Pause() {
	w.gate.Lock()
	w.paused.Store(true)
}

// Resume ends a Pause; without one it does nothing.
func (w *Writers) Resume() {
	if w.paused.Swap(false) {
		w.ledger.resumed()
		w.gate.Unlock()
	}
}

func (w *Writers) write(ctx context.Context, mine []*series, rng *rand.Rand) {
	ticker := time.NewTicker(max(w.load.Interval, time.Nanosecond))
	defer ticker.Stop()
	times := w.inOrder()
	if w.load.Late > 0 {
		times = w.late(rng)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		w.request(ctx, mine, times, rng)
	}
}

// request books and sends one request.
func (w *Writers) request(ctx context.Context, mine []*series, times func() []int64, rng *rand.Rand) {
	w.gate.RLock()
	defer w.gate.RUnlock()
	if ctx.Err() != nil {
		return
	}
	b, err := w.ledger.next(mine, times(), w.load.Extras)
	if err != nil {
		w.ledger.count("encode", err.Error())
		return
	}
	w.send(ctx, b, rng)
}

// inOrder gives the timestamps of one request after the other: near the clock, for writers far apart would be too old
// for each other, and always later than those before.
func (w *Writers) inOrder() func() []int64 {
	next := int64(0)
	return func() []int64 {
		next = max(next, time.Now().UnixMilli())
		out := make([]int64, w.load.Samples)
		for i := range out {
			out[i] = next
			next++
		}
		return out
	}
}

// late gives timestamps that lie anywhere in the time before, none of them twice.
func (w *Writers) late(rng *rand.Rand) func() []int64 {
	used := map[int64]bool{}
	return func() []int64 {
		now := time.Now().UnixMilli()
		var out []int64
		for len(out) < w.load.Samples {
			if t := now - rng.Int64N(w.load.Late.Milliseconds()); !used[t] {
				used[t] = true
				out = append(out, t)
			}
		}
		slices.Sort(out) // within a series of one request: what senders do
		return out
	}
}

// send tries until the batch is acknowledged or attempts are used up. A retry goes to any node and carries
// the same samples: by the rules of admission that must be harmless.
func (w *Writers) send(ctx context.Context, b *batch, rng *rand.Rand) {
	for range attempts {
		target := w.load.Targets[rng.IntN(len(w.load.Targets))]
		start := time.Now()
		acked, wait := w.attempt(ctx, target, b)
		if acked {
			w.ledger.acknowledge(b, start)
			if w.load.Acked != nil {
				w.load.Acked()
			}
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
	w.ledger.count("given up", "")
}

func (w *Writers) attempt(ctx context.Context, target *client.Client, b *batch) (acked bool, wait time.Duration) {
	const retry = 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	resp, err := target.WriteBody(ctx, b.body)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		w.ledger.count("timeout", "")
		return false, retry
	case err != nil:
		w.ledger.count("connection", "")
		return false, retry
	case resp.Status/100 == 2:
		w.ledger.count(fmt.Sprint(resp.Status), "")
		return true, 0
	case w.retryable(target, resp.Status):
		w.ledger.count(fmt.Sprint(resp.Status), "")
		return false, retry
	default:
		w.ledger.count(fmt.Sprint(resp.Status), fmt.Sprintf("%s: %v", target.URL, resp.Err()))
		return false, retry
	}
}

// retryable statuses are 503, and those that a load balancer answers with when a node dies in the middle of its answer. A node
// gives none of these itself.
func (w *Writers) retryable(target *client.Client, status int) bool {
	switch status {
	case http.StatusServiceUnavailable:
		return true
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return w.load.Balancer != "" && target.URL == w.load.Balancer
	}
	return false
}
