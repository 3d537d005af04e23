// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

const (
	snapshotCheck = time.Second
	snapshotRetry = 30 * time.Second // after a failure
	// replayPatience is how long snapshots wait for a node that has not caught up; without a leader it never does.
	replayPatience = 2 * time.Minute
	// leasedFactor is how much longer the log may grow while a node fetches the newest snapshot. With a new one all
	// the time, the leader would never offer the one that has just been fetched.
	leasedFactor = 8
	minTrailing  = 256 // entries
	maxTrailing  = 1 << 20
	// snapshotErasures is how many deletes a restart may have to repeat: each costs a memtable of its own, and its flush.
	snapshotErasures = 64
)

// takeSnapshots makes Raft snapshots when enough has been logged since the last one. Raft's own trigger knows only
// numbers of entries, which here say nothing: one is 100 bytes or 30 MiB.
func (n *Node) takeSnapshots(ctx context.Context) {
	g := n.stores.guard
	start := time.Now()
	last := start
	var bytes int64     // of the guard at the last snapshot; what was replayed counts as logged since
	var erasures uint64 // at the last snapshot
	jitter := snapshotJitter()
	var retry time.Time
	tick(ctx, snapshotCheck, func() {
		// Not while the log is being replayed: a snapshot freezes the memtable and flushes it, which holds up becoming
		// ready, and the log is no shorter for it until the replay is over.
		if _, known := n.fresh.age(); !known && time.Since(start) < replayPatience {
			return
		}
		index, _ := n.snapshots.newest()
		applied, _ := n.fsm.Applied()
		if applied <= index || time.Now().Before(retry) || n.fsmFailed() {
			return
		}
		before, erased := g.bytes.Load(), n.fsm.Erasures()
		if !n.snapshotDue(before-bytes, applied-index, erased-erasures, time.Since(last), jitter) {
			return
		}
		if err := n.snapshot(ctx); err != nil {
			if ctx.Err() == nil && !errors.Is(err, errConfigPending) {
				retry = time.Now().Add(snapshotRetry)
				n.logger.Warn("Raft snapshot failed, trying again", "err", err)
			}
			return
		}
		bytes, erasures, last, jitter = before, erased, time.Now(), snapshotJitter()
		n.setTrailing()
	})
}

// snapshotDue tells whether so much log, so many deletes, or so long a time with something new, is worth a snapshot.
func (n *Node) snapshotDue(bytes int64, entries, erasures uint64, age time.Duration, scale float64) bool {
	if n.source.leased(n.snapshots.newestID()) {
		scale, age = leasedFactor, 0
	}
	return float64(bytes) >= scale*float64(n.cfg.SnapshotLogBytes) ||
		float64(entries) >= scale*float64(n.cfg.SnapshotEntries) ||
		float64(erasures) >= scale*snapshotErasures ||
		age >= time.Duration(scale*float64(n.cfg.SnapshotAge))
}

// snapshotJitter keeps nodes that apply the same log from freezing at the same moment.
func snapshotJitter() float64 { return 0.75 + rand.Float64()/2 }

// errConfigPending: Raft makes no snapshot before a change of the configuration that was committed is applied, which it
// soon is.
var errConfigPending = errors.New("a change of the configuration is not applied yet")

// snapshotSoon is snapshot, and waits for a change of the configuration until ctx ends.
func (n *Node) snapshotSoon(ctx context.Context) error {
	for {
		err := n.snapshot(ctx)
		if !errors.Is(err, errConfigPending) {
			return err
		}
		sleep(ctx, retryMax)
		if ctx.Err() != nil {
			return err
		}
	}
}

// snapshot makes one, unless nothing is new or a configuration change is under way, which are errors. Only its wait is
// bounded by ctx.
func (n *Node) snapshot(ctx context.Context) error {
	n.snapshotMu.Lock()
	defer n.snapshotMu.Unlock()
	start := time.Now()
	err := n.await(ctx, lazyFuture(n.raftSnapshot))
	if err != nil && strings.Contains(err.Error(), "wait until the configuration entry") {
		return errConfigPending // Raft has no sentinel for it
	}
	switch {
	case err == nil:
		n.metrics.snapshots.WithLabelValues("ok").Inc()
		n.metrics.snapshotTime.Observe(time.Since(start).Seconds())
	case !errors.Is(err, raft.ErrNothingNewToSnapshot):
		n.metrics.snapshots.WithLabelValues("error").Inc()
	}
	return err
}

func (n *Node) raftSnapshot() error {
	if err := n.cfg.hooks.beforeSnapshot(); err != nil {
		return err
	}
	return n.ending(n.raft.Snapshot()).Error()
}

// setTrailing turns the byte budget of the log behind a snapshot into Raft's number of entries.
func (n *Node) setTrailing() {
	g := n.stores.guard
	if g.entries.Load() == 0 {
		return
	}
	c := n.raft.ReloadableConfig()
	c.TrailingLogs = uint64(min(max(n.cfg.TrailingLogBytes/g.meanBytes(), minTrailing), maxTrailing))
	if err := n.raft.ReloadConfig(c); err != nil {
		n.logger.Warn("Trailing log not adapted", "err", err)
	}
}
