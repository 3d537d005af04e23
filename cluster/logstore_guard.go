// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/internal/fault"
)

// guard stands between Raft and its disk.
//
//   - It times every write and counts the bytes.
//   - A write that fails is fatal and is never tried again: after a failed fsync nobody knows what is on disk, and
//     Raft would step down and be elected again in a loop (raft#614).
//   - A write that hangs is fatal after a deadline: the heartbeats of a leader go on while its disk hangs, so that
//     nobody replaces it and every write of the cluster hangs with it (raft#503).
//   - The log after the older retained snapshot is kept, whatever Raft's trailing rule says, so that a damaged
//     newest snapshot is only a longer replay.
//
// May shrink to the histogram and the last rule when Raft has a deadline of its own. Tests: TestGuard*.
type guard struct {
	log      logStore
	timeout  time.Duration
	keepFrom func() uint64
	metrics  *metrics
	onFatal  func(error)

	bytes   atomic.Int64 // payload written, and while replaying is set also read
	entries atomic.Int64
	replay  atomic.Bool

	mu      sync.Mutex            // protects the following
	writes  map[uint64]*writeInfo // in flight
	next    uint64
	failed  error
	closing bool

	stop chan struct{}
	done chan struct{}
}

// writeInfo is a write in flight. Its age is counted in rounds of the watchdog, not by the clock: a process that was
// stopped, or a virtual machine that was moved, has waited for nobody.
type writeInfo struct {
	what   string
	rounds int
}

func newGuard(log logStore, o storeOptions) *guard {
	g := &guard{
		log: log, timeout: o.writeTimeout, keepFrom: o.keepFrom, metrics: o.metrics, onFatal: o.onFatal,
		writes: make(map[uint64]*writeInfo), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go g.watch()
	return g
}

// watch looks for overdue writes.
func (g *guard) watch() {
	defer close(g.done)
	every := max(g.timeout/10, time.Millisecond)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-g.stop:
			return
		case <-t.C:
		}
		g.mu.Lock()
		for _, w := range g.writes {
			w.rounds++
			if age := time.Duration(w.rounds) * every; age > g.timeout {
				g.failLocked(fmt.Errorf("raft %s has been hanging for %s", w.what, age))
				break
			}
		}
		g.mu.Unlock()
	}
}

// failLocked makes err the answer to every later write.
func (g *guard) failLocked(err error) {
	if g.failed != nil || g.closing {
		return
	}
	g.failed = err
	g.metrics.logErrors.Inc()
	g.onFatal(err)
}

// do runs one write under the watchdog.
func (g *guard) do(what string, write func() error) error {
	g.mu.Lock()
	if g.failed != nil {
		defer g.mu.Unlock()
		return g.failed
	}
	id := g.next
	g.next++
	g.writes[id] = &writeInfo{what: what}
	g.mu.Unlock()

	err := write()

	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.writes, id)
	if err != nil {
		err = fmt.Errorf("raft %s: %w", what, err)
		g.failLocked(err)
		return err
	}
	return g.failed // a write that came back after its deadline does not count: the process is being stopped
}

// meanBytes is the mean size of an entry, at least 1.
func (g *guard) meanBytes() int64 { return max(g.bytes.Load()/max(g.entries.Load(), 1), 1) }

// StoreLog implements raft.LogStore.
func (g *guard) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (g *guard) StoreLogs(ls []*raft.Log) error {
	start := time.Now()
	fault.Point(fault.LogBeforeWrite)
	err := g.do("log write", func() error {
		fault.Point(fault.LogHang)
		return g.log.StoreLogs(ls)
	})
	if err != nil {
		return err
	}
	fault.Point(fault.LogAfterSync)
	g.metrics.logWrite.Observe(time.Since(start).Seconds())
	var n int64
	for _, l := range ls {
		n += int64(len(l.Data))
	}
	g.bytes.Add(n)
	g.entries.Add(int64(len(ls)))
	g.metrics.logBytes.Add(float64(n))
	return nil
}

// GetLog implements raft.LogStore. Raft panics when it cannot read what it is to apply, so a damaged entry is reported
// as fatal, and the answer waits for the end of the process: the next start repairs or refuses the log.
func (g *guard) GetLog(i uint64, l *raft.Log) error {
	err := g.log.GetLog(i, l)
	if errors.Is(err, ErrDamaged) {
		g.mu.Lock()
		g.failLocked(err)
		g.mu.Unlock()
		select {
		case <-g.stop:
		case <-time.After(g.timeout):
		}
		return err
	}
	if err == nil && g.replay.Load() {
		g.bytes.Add(int64(len(l.Data)))
		g.entries.Add(1)
	}
	return err
}

// DeleteRange implements raft.LogStore. A range that reaches the end of the log is Raft's conflict resolution or the
// reset after an installed snapshot and passes; any other is compaction and is clamped.
func (g *guard) DeleteRange(lo, hi uint64) error {
	last, err := g.log.LastIndex()
	if err != nil {
		return err
	}
	if hi < last {
		if keep := g.keepFrom(); hi > keep {
			hi = keep
		}
		if hi < lo {
			return nil
		}
	}
	err = g.do("log truncation", func() error { return g.log.DeleteRange(lo, hi) })
	fault.Point(fault.LogAfterTruncate)
	return err
}

// FirstIndex implements raft.LogStore.
func (g *guard) FirstIndex() (uint64, error) { return g.log.FirstIndex() }

// LastIndex implements raft.LogStore.
func (g *guard) LastIndex() (uint64, error) { return g.log.LastIndex() }

// IsMonotonic implements raft.MonotonicLogStore.
func (g *guard) IsMonotonic() bool { return g.log.IsMonotonic() }

// Close ends the watchdog. Errors of writes that the closing itself causes are not fatal.
func (g *guard) Close() error {
	g.mu.Lock()
	first := !g.closing
	g.closing = true
	g.mu.Unlock()
	if first {
		close(g.stop)
	}
	<-g.done
	return nil
}

// guardedStable watches the store of term and vote likewise.
type guardedStable struct {
	guard *guard
	raft.StableStore
}

// Set implements raft.StableStore.
func (s guardedStable) Set(k, v []byte) error {
	return s.guard.do("vote write", func() error { return s.StableStore.Set(k, v) })
}

// SetUint64 implements raft.StableStore.
func (s guardedStable) SetUint64(k []byte, v uint64) error {
	return s.guard.do("term write", func() error { return s.StableStore.SetUint64(k, v) })
}
