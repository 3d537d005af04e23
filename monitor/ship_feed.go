// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/scrape"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

const (
	// settleShare: under constant load the feed rests now and then until everything has been delivered, and a position
	// is known. A rest lasts about as long as the queue waits for its last batch to fill, a stretch in between this many
	// times as long. What of a stretch has arrived is sent again after a failover.
	settleShare = 5
	settlePoll  = 100 * time.Millisecond
	feedRetry   = time.Second
	forgetEvery = 10 * time.Minute
)

// feed brings the log to one remote store while this node leads, from a position on.
type feed struct {
	log    ShipLog
	fsm    *fsm.FSM
	store  *remoteStore
	queues queueOptions
	logger *slog.Logger

	stop  context.CancelFunc // ends run
	flush context.Context    // set before stop: how long the queue may send what it has
	done  chan struct{}      // closed when run has returned

	fed mark // everything up to it has been given to the queue; run's own

	mu        sync.Mutex // protects the following
	delivered mark
	client    *shipClient // of the running queue, or nil
}

// mark is a place in the log.
type mark struct {
	index  uint64
	append uint64 // newest append entry at or below index that the feed has met, or 0
}

// start lets the feed run from the mark of prev, when that has ended, or else from index on.
func (f *feed) start(ctx context.Context, index uint64, prev *feed) {
	ctx, f.stop = context.WithCancel(ctx)
	f.done = make(chan struct{})
	f.delivered = mark{index: index}
	f.queues.metrics.begin(f.store.name)
	go func() {
		defer close(f.done)
		if prev != nil {
			<-prev.done
			f.set(prev.at())
		}
		for ctx.Err() == nil {
			f.run(ctx)
		}
	}()
}

// end stops the feed, which sends what the queue has until flush ends. done tells when it has ended.
func (f *feed) end(flush context.Context) {
	f.flush = flush
	f.stop()
}

func (f *feed) at() mark {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.delivered
}

func (f *feed) set(m mark) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delivered = m
}

// take uses other's client, for the same store.
func (f *feed) take(other *remoteStore) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.store.client = other.client
	if f.client != nil {
		f.client.swap(other.client)
	}
}

func (f *feed) open() (*queue, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := openQueue(f.queues, f.store)
	if err == nil {
		f.client = q.client
		f.queues.metrics.add(q)
	}
	return q, err
}

// run is the life of one queue: until ctx ends, or the queue has thrown data away. The next one begins at what has been
// delivered.
func (f *feed) run(ctx context.Context) {
	q, err := f.open()
	if err != nil {
		f.complain(ctx, "queue", err)
		return
	}
	var wg sync.WaitGroup
	flushed := false
	inner, cancel := context.WithCancel(ctx)
	wg.Go(func() { f.sendMetadata(inner, q) })
	wg.Go(func() {
		<-inner.Done() // a full queue holds the feed up until it is closed
		flush := inner
		if ctx.Err() != nil && f.flush != nil {
			flush = f.flush
		}
		f.queues.metrics.remove(q)
		flushed = q.close(flush)
	})
	f.fed = f.at()
	f.ship(ctx, q)
	cancel()
	wg.Wait()
	if flushed {
		f.set(f.fed)
	} else if ctx.Err() == nil {
		f.queues.metrics.rewinds.WithLabelValues(f.store.name).Inc()
		f.logger.Warn("The queue of a remote store has thrown data away, sending again", "remote_name", f.store.name, "from", f.at().index)
	}
}

// ship feeds the queue until ctx ends, or the queue has thrown data away or is closed.
func (f *feed) ship(ctx context.Context, q *queue) {
	reader := f.fsm.NewLogReader()
	settled, forgotten := time.Now(), time.Now()
	again, _ := f.fsm.Applied() // up to here an earlier queue may have sent something
	q.client.repeats.Store(f.fed.index < again && f.store.config.ProtobufMessage == remoteapi.WriteV1MessageType)
	stretch := settleShare * f.store.batchDeadline()
	for ctx.Err() == nil {
		applied, _ := f.fsm.Applied()
		idle := f.fed.index >= applied
		switch {
		case idle && f.fed.append == f.at().append:
			f.set(f.fed) // nothing for the remote store since
			if f.fsm.Wait(ctx, f.fed.index+1) != nil {
				rest(ctx, feedRetry)
			}
		case idle || time.Since(settled) >= stretch:
			switch ok, err := f.settle(q); {
			case err != nil:
				return
			case ok:
				settled = time.Now()
				if f.fed.index >= again {
					q.client.repeats.Store(false)
				}
			default:
				rest(ctx, settlePoll)
			}
		case !f.entry(ctx, q, reader):
			return
		}
		if time.Since(forgotten) >= forgetEvery {
			if left := reader.Forget(f.fed.index); left != nil {
				q.forget(left)
			}
			forgotten = time.Now()
		}
	}
}

var errLossy = errors.New("queue has thrown data away")

// settle notes what has been fed as delivered if the queue has nothing left.
func (f *feed) settle(q *queue) (bool, error) {
	ok, err := q.settled()
	if err != nil || !ok {
		return false, err
	}
	if q.client.lossy() {
		return false, errLossy
	}
	f.set(f.fed)
	return true, nil
}

// entry feeds the next entry of the log. It returns false when the queue has been closed.
func (f *feed) entry(ctx context.Context, q *queue, reader *fsm.LogReader) bool {
	next := f.fed.index + 1
	data, err := f.log.AppliedEntry(next)
	switch {
	case errors.Is(err, cluster.ErrCompacted):
		f.skip(next)
		return true
	case err != nil:
		f.complain(ctx, "read", err)
		return true
	case !fsm.IsAppend(data):
		f.fed.index = next
		return true
	}
	added, err := reader.Read(next, data)
	if err != nil { // it was applied, so it can be read, but for a bug
		f.complain(ctx, "read", err)
		return true
	}
	if added.Lost > 0 {
		f.queues.metrics.lost.WithLabelValues(f.store.name).Add(float64(added.Lost))
		f.logger.Warn("Samples cannot be shipped, their series were dropped as idle meanwhile", "remote_name", f.store.name, "index", next, "count", added.Lost)
	}
	if !q.append(added) {
		return false
	}
	f.fed = mark{next, next}
	return true
}

// skip goes on where the log of this node begins.
func (f *feed) skip(next uint64) {
	first, applied := f.log.FirstLogIndex(), uint64(0)
	if first <= next { // empty, or changed meanwhile
		if applied, _ = f.fsm.Applied(); first == 0 {
			first = applied + 1
		}
	}
	if first <= next {
		return
	}
	f.queues.metrics.skipped.WithLabelValues(f.store.name).Add(float64(first - next))
	f.logger.Error("The log does not hold any more what a remote store has not got yet; this is left out", "remote_name", f.store.name, "from", next, "to", first-1)
	f.fed.index = first - 1
}

func (f *feed) complain(ctx context.Context, step string, err error) {
	f.queues.metrics.failures.WithLabelValues(step).Inc()
	f.logger.Error("Shipping to a remote store failed, trying again", "remote_name", f.store.name, "step", step, "err", err)
	rest(ctx, feedRetry)
}

// sendMetadata sends all metadata now and then, which is how remote write 1.0 has it.
func (f *feed) sendMetadata(ctx context.Context, q *queue) {
	c := f.store.config
	if !c.MetadataConfig.Send || c.ProtobufMessage != remoteapi.WriteV1MessageType {
		return
	}
	t := time.NewTicker(time.Duration(c.MetadataConfig.SendInterval))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		var all []scrape.MetricMetadata
		for family, list := range f.fsm.MetricMetadata() {
			for _, m := range list {
				all = append(all, scrape.MetricMetadata{MetricFamily: family, Type: metricType(m.Type), Help: m.Help, Unit: m.Unit})
			}
		}
		q.manager.AppendWatcherMetadata(context.WithValue(ctx, metadataKey{}, true), all)
	}
}

func metricType(t model.MetricType) model.MetricType {
	if t == "" {
		return model.MetricTypeUnknown
	}
	return t
}

// rest waits for d, or less if ctx ends.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
