// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/fsm"
)

// freshBaseWait bounds the snapshot that is taken to have a newer base.
const freshBaseWait = time.Minute

// freshBase makes a snapshot of what this node has applied since its last one, so that all of it can be kept. A node
// that has just started has applied nothing; one that was cut off may have gone on for a while before.
func (f *fetch) freshBase(ctx context.Context) {
	index, _ := f.store.newest()
	if applied, _ := f.node.fsm.Applied(); applied <= index || f.node.fsmFailed() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, freshBaseWait)
	defer cancel()
	if err := f.node.snapshotSoon(ctx); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		f.logger.Warn("No snapshot of this node's state before the catch-up, more is fetched", "err", err)
	}
}

// candidate is a directory whose blocks may be kept.
type candidate struct {
	index uint64
	id    string // to pin; "" for directories that nobody reaps
	dir   string
}

// openBase finds the newest usable snapshot on this disk that is not newer than the offer: this node's own, one that
// was fetched and never installed, or one that was set aside as damaged, less what is damaged in it. nil if there is
// none. Reads all of its bytes.
func (f *fetch) openBase(ctx context.Context) *fsm.Base {
	for _, c := range f.candidates() {
		if c.index > f.offer.Index {
			continue
		}
		unpin := func() error { return nil }
		if c.id != "" {
			var err error
			if _, unpin, err = f.store.pin(c.id); err != nil {
				continue // reaped meanwhile
			}
		}
		start := time.Now()
		base, err := fsm.OpenBase(ctx, c.dir)
		if err != nil {
			_ = unpin()
			if ctx.Err() != nil {
				return nil
			}
			f.logger.Warn("A snapshot on this disk cannot be used for the catch-up", "dir", c.dir, "err", err)
			continue
		}
		for _, err := range base.Damaged() {
			f.logger.Warn("A damaged block on this disk is not used for the catch-up", "dir", c.dir, "err", err)
		}
		f.logger.Info("Checked a snapshot on this disk for the catch-up", "dir", c.dir, "index", base.Index(), "duration", time.Since(start))
		f.unpin = unpin
		return base
	}
	return nil
}

// candidates lists all, newest first; of two with one index the one that is not known to be damaged.
func (f *fetch) candidates() []candidate {
	var out []candidate
	metas, _ := f.store.List() // never fails
	for _, m := range metas {
		out = append(out, candidate{m.Index, m.ID, f.store.dataDir(m.ID)})
	}
	for _, s := range f.staged() {
		dir := filepath.Join(f.dir, s.name, dataName)
		if _, err := os.Stat(dir); err == nil {
			out = append(out, candidate{index: s.index, dir: dir})
		}
	}
	aside, err := filepath.Glob(filepath.Join(f.store.dir, "*"+damagedSuffix))
	if err != nil {
		f.logger.Warn("Cannot look for damaged snapshots", "err", err)
	}
	for _, dir := range aside {
		if id, ok := parseSnapshotID(strings.TrimSuffix(filepath.Base(dir), damagedSuffix)); ok {
			out = append(out, candidate{index: id.index, dir: filepath.Join(dir, dataName)})
		}
	}
	slices.SortStableFunc(out, func(a, b candidate) int { return cmp.Compare(b.index, a.index) })
	return out
}

// dropBase releases the base; the next attempt makes a new plan.
func (f *fetch) dropBase() {
	f.plan = nil
	f.progress.again()
	if f.unpin == nil {
		return
	}
	if err := f.unpin(); err != nil {
		f.logger.Error("Cannot remove an old Raft snapshot", "err", err)
	}
	f.unpin = nil
}
