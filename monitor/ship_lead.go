// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"time"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

const (
	// noteEvery is how often positions that have moved are noted in the log: each time is an entry.
	noteEvery   = 2 * time.Second
	noteTimeout = 5 * time.Second
	// replaceGrace is how long a queue whose section has changed may send what it has. The new one sends the rest.
	replaceGrace = 5 * time.Second
	// forgetAfter is how long a position is kept that the leader's file does not name: the files of the nodes are
	// not changed at one moment.
	forgetAfter = 10 * time.Minute
)

// shipTerm is the shipping of one term of leadership.
type shipTerm struct {
	*Shipper
	feeds   map[string]*feed     // by key
	missing map[string]time.Time // positions of no remote store, by the time when that was found
}

// lead ships until ctx ends.
func (s *Shipper) lead(ctx context.Context) {
	ctx, end := s.begin(ctx)
	if ctx == nil {
		return
	}
	defer end()
	t := &shipTerm{Shipper: s, feeds: map[string]*feed{}, missing: map[string]time.Time{}}
	defer t.end()
	tick := time.NewTicker(noteEvery)
	defer tick.Stop()
	for {
		want, changed := s.wanted()
		t.reconcile(ctx, want)
		t.note(ctx)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// reconcile starts and ends feeds until there is one for each remote store.
func (t *shipTerm) reconcile(ctx context.Context, want []*remoteStore) {
	keys := map[string]bool{}
	for _, r := range want {
		keys[r.key] = true
		old := t.feeds[r.key]
		if old != nil && old.store.sameQueue(r) {
			old.take(r)
			continue
		}
		f := &feed{log: t.opts.Log, fsm: t.opts.FSM, store: r, queues: t.queues, logger: t.logger}
		index, known := t.opts.FSM.Shipped()[r.key]
		if !known { // a new one gets what comes from now on
			index, _ = t.opts.FSM.Applied()
		}
		if old != nil {
			t.replace(old)
		}
		t.logger.Info("Shipping to a remote store", "remote_name", r.name, "from", index+1)
		f.start(context.WithoutCancel(ctx), index, old)
		t.feeds[r.key] = f
	}
	for key, f := range t.feeds {
		if !keys[key] {
			t.replace(f)
			delete(t.feeds, key)
		}
	}
}

// replace ends a feed, in the background.
func (t *shipTerm) replace(f *feed) {
	flush, cancel := context.WithTimeout(context.Background(), replaceGrace)
	f.end(flush)
	t.metrics.position.DeleteLabelValues(f.store.name)
	t.metrics.behind.DeleteLabelValues(f.store.name)
	t.ending.Go(func() {
		<-f.done
		cancel()
	})
}

// end stops all feeds. Without Stop the leadership is lost: the next leader sends everything again that has not been
// noted, so that nothing is gained by flushing. With it, this waits until they have flushed or may not any more, and notes
// how far they have got.
func (t *shipTerm) end() {
	stop := t.stopping()
	if stop == nil {
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		t.endFeeds(gone)
	} else {
		flush, cancel := t.flush(stop)
		defer cancel()
		t.endFeeds(flush)
		for _, f := range t.feeds {
			select {
			case <-f.done:
			case <-flush.Done():
			}
		}
		t.note(stop)
	}
	t.metrics.position.Reset()
	t.metrics.behind.Reset()
}

func (t *shipTerm) endFeeds(flush context.Context) {
	for _, f := range t.feeds {
		f.end(flush)
		t.ending.Go(func() { <-f.done })
	}
}

// note puts the positions that have moved into the log. It does so only for entries that mean something to the remote
// stores, or its own entry would be the reason for the next.
func (t *shipTerm) note(ctx context.Context) {
	known := t.opts.FSM.Shipped()
	applied, _ := t.opts.FSM.Applied()
	out := fsm.Shipped{Positions: map[string]uint64{}}
	for key, f := range t.feeds {
		at := f.at()
		old, ok := known[key]
		if !ok || at.append > old {
			out.Positions[key] = at.index
		}
		t.metrics.position.WithLabelValues(f.store.name).Set(float64(at.index))
		t.metrics.behind.WithLabelValues(f.store.name).Set(float64(applied - min(applied, at.index)))
	}
	for key := range known {
		if t.feeds[key] != nil {
			delete(t.missing, key)
		} else if since, ok := t.missing[key]; !ok {
			t.missing[key] = time.Now()
		} else if time.Since(since) >= forgetAfter {
			out.Forget = append(out.Forget, key)
		}
	}
	if len(out.Positions)+len(out.Forget) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	_, err := t.opts.Log.Propose(ctx, fsm.EncodeShipped(out))
	switch {
	case err == nil, errors.Is(err, cluster.ErrLevel), errors.Is(err, cluster.ErrStopped), errors.Is(err, context.Canceled):
	default:
		t.metrics.failures.WithLabelValues("position").Inc()
		t.logger.Warn("The positions of the remote stores are not noted in the log, trying again", "err", err)
	}
}
