// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/internal/fault"
)

// A node that is too far behind for the log catches up by what it lacks. The leader's Raft offers it a snapshot
// (snapshot_offer.go); the node's fetcher, below, gets the blocks that are not on this disk from the node that made
// the offer (catchup_source.go), and puts them together with its own. When the leader offers that snapshot again, it
// is installed by a rename.
//
// Everything lies in <Dir>/snapshots-raft/incoming and survives restarts:
//
//	<snapshot>/offer        what is fetched
//	<snapshot>/state        its state file
//	<snapshot>/data/        the whole snapshot, once it is complete and has been verified
//	blocks/<ULID>/...       fetched files; their contents are known by their names, so another offer may use them too
//	....<crc>.part          the beginning of a file
const (
	incomingName = "incoming"
	offerName    = "offer"
)

const (
	defaultPatience = 30 * time.Second
	// Waits between attempts that fail.
	fetchRetryMin = 100 * time.Millisecond
	fetchRetryMax = 5 * time.Second
	// tidyEvery is how often the fetcher looks whether what it holds is still of use.
	tidyEvery = 10 * time.Second
)

// catchUp is the fetcher of a node. One fetch runs at a time, and goes on while it makes progress: what it brings is
// a base for the next one, should there be a newer offer by then.
type catchUp struct {
	node    *Node
	store   *SnapshotStore
	dir     string
	logger  *slog.Logger
	metrics *metrics
	// patience is how long a fetch goes on without a byte before the newest offer replaces it.
	patience time.Duration
	wake     chan struct{} // has something when there is an offer or an end to look at
	short    *shortage     // of the last offer that did not fit; the fetcher's own

	mu       sync.Mutex              // protects the following
	cancel   context.CancelCauseFunc // of the fetch that runs
	newest   *offer                  // the last offer, nil when there is nothing to do
	ready    *offer                  // has been fetched and waits for the leader to offer it again
	progress *progress               // of the fetch that runs, or of the one that is ready
}

func newCatchUp(n *Node) *catchUp {
	return &catchUp{
		node: n, store: n.snapshots, dir: filepath.Join(n.snapshots.dir, incomingName),
		logger: n.logger, metrics: n.metrics, patience: defaultPatience, wake: make(chan struct{}, 1),
	}
}

// receive is the store's receiveFunc. Raft's main loop calls it: it must not wait.
func (c *catchUp) receive(o *offer, dst string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.poke()
	installed := c.store.find(o.Index, o.Term) != nil && holds(c.node.fsm, o.manifest)
	if !installed && !o.same(c.ready) {
		c.newest = o
		return fmt.Errorf("%w: %s of node %s", errCatchingUp, o.Snapshot, o.Node)
	}
	fault.Point(fault.CatchUpBeforeCommit)
	c.newest, c.ready = nil, nil
	if p := c.progress; p != nil && p.get().Snapshot == o.Snapshot { // not that of a fetch that goes on
		c.progress = nil
	}
	if installed {
		return errInstalled
	}
	if err := os.Remove(dst); err != nil {
		return err
	}
	// Its blocks also lie in incoming/blocks until the fetcher tidies up, so if what follows fails, putting it
	// together again costs no transfer.
	return os.Rename(c.dataDir(o), dst)
}

// holds tells whether f is in the state of a snapshot, which its index and term name.
func holds(f *fsm.FSM, m fsm.Manifest) bool {
	index, term := f.Applied()
	return index == m.Index && term == m.Term
}

// poke wakes the fetcher.
func (c *catchUp) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *catchUp) stageDir(o *offer) string { return filepath.Join(c.dir, o.Snapshot) }

// dataDir exists once the snapshot is complete.
func (c *catchUp) dataDir(o *offer) string { return filepath.Join(c.stageDir(o), dataName) }

// run is the fetcher.
func (c *catchUp) run(ctx context.Context) {
	t := time.NewTicker(tidyEvery)
	defer t.Stop()
	for {
		c.tidy()
		c.yieldDisk()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-c.wake:
			for o := c.next(); o != nil && ctx.Err() == nil; o = c.next() {
				c.fetch(ctx, o)
			}
		}
	}
}

// next returns the offer to fetch, or nil.
func (c *catchUp) next() *offer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.newest == nil || c.newest.same(c.ready) {
		return nil
	}
	return c.newest
}

// fetch brings o here, or gives it up.
func (c *catchUp) fetch(ctx context.Context, o *offer) {
	if c.stillShort(o) {
		return
	}
	f := newFetch(c, o)
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.mu.Lock()
	c.progress, c.cancel = f.progress, cancel
	c.mu.Unlock()
	err := f.run(running)
	f.dropBase()
	if err == nil {
		c.mu.Lock()
		c.ready = o
		c.mu.Unlock()
		f.dropStaged()
		c.short = nil
		c.metrics.catchUps.WithLabelValues("ok").Inc()
		c.metrics.catchUpTime.Observe(time.Since(f.progress.start).Seconds())
		return
	}
	if ctx.Err() != nil {
		return
	}
	if cause := context.Cause(running); errors.Is(cause, ErrDiskFull) {
		err = cause
	}
	if isFull(err) {
		c.giveWay(f, err)
		return
	}
	c.metrics.catchUps.WithLabelValues("dropped").Inc()
	c.logger.Warn("Catch-up given up, waiting for another offer of the leader", append(f.progress.args(), "err", err)...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.progress = nil
	if o.same(c.newest) {
		c.newest = nil // the leader offers it again, if it still has it
	}
}

// tidy removes what is of no use any more.
func (c *catchUp) tidy() {
	index, _ := c.store.newest()
	c.mu.Lock()
	applied, _ := c.node.fsm.Applied()
	if c.ready != nil && max(applied, index) >= c.ready.Index {
		c.ready, c.newest, c.progress = nil, nil, nil // the log was enough after all
	} else if p := c.progress; p != nil && c.newest == nil && c.ready == nil && applied >= p.get().Index {
		c.progress = nil // there was no room for it, and it is not needed any more
	}
	wanted := c.newest
	c.mu.Unlock()
	left := 0
	for _, s := range c.staged() {
		if s.index > max(applied, index) || wanted != nil && s.name == wanted.Snapshot {
			left++
			continue
		}
		c.remove(filepath.Join(c.dir, s.name))
	}
	if left == 0 && wanted == nil {
		c.remove(c.dir)
	}
}

// remove makes sure that no half-removed directory is taken for a whole one.
func (c *catchUp) remove(dir string) {
	err := os.Rename(filepath.Join(dir, dataName), filepath.Join(dir, dataName+tmpSuffix))
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = os.RemoveAll(dir)
	}
	if err != nil {
		c.logger.Error("Cannot remove what was fetched of an old snapshot", "dir", dir, "err", err)
	}
}

// stagedSnapshot is one directory in incoming.
type stagedSnapshot struct {
	name  string
	index uint64
}

func (c *catchUp) staged() []stagedSnapshot {
	es, err := os.ReadDir(c.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.logger.Error("Cannot look at what was fetched before", "err", err)
	}
	var out []stagedSnapshot
	for _, e := range es {
		if id, ok := parseSnapshotID(e.Name()); ok {
			out = append(out, stagedSnapshot{e.Name(), id.index})
		}
	}
	return out
}
