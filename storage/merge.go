// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/deucaliondb/deucalion/internal/fault"
	"github.com/deucaliondb/deucalion/internal/plant"
)

// mergeLoop is the merger. It rests while the disk is low.
func (s *Store) mergeLoop() {
	s.work("Merging blocks", func() (bool, error) {
		if s.lowDisk.Load() {
			return false, nil
		}
		return s.MergeOne()
	}, s.kickMerge, s.m.mergeFailures)
}

// MergeOne merges the blocks that the plan names; it reports whether there were
// any.
func (s *Store) MergeOne() (bool, error) {
	s.compactMu.Lock()
	defer s.compactMu.Unlock()
	s.mu.RLock()
	var spans []span
	now := NoTime
	for _, b := range s.blocks {
		spans = append(spans, span{b.files.ULID, b.MinTime(), b.MaxTime(), b.Size()})
		now = max(now, b.MaxTime())
	}
	s.mu.RUnlock()
	p := plan(spans, now, maxBlockSpan(s.opts.MaxBlockSpan, now, s.cutoff.Load()))
	if len(p) == 0 {
		return false, nil
	}
	start := time.Now()
	if err := s.noteWriteError(s.rewrite(p)); err != nil {
		return true, err
	}
	s.m.merges.Inc()
	s.m.mergeSeconds.Observe(time.Since(start).Seconds())
	return true, nil
}

// rewrite replaces the blocks by one that holds their samples without the
// deleted ones, or by none if nothing is left. compactMu is held.
//
// The job is registered and then the sources are hard-linked to a private
// directory: so a delete is in the tombstones that the merge reads, or in the
// job, or in both, and the compactor's notes in meta.json do not touch live
// blocks.
func (s *Store) rewrite(sources []ulid.ULID) error {
	work, err := s.privateDir("merge")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)

	s.mu.Lock()
	var old []*block
	for _, b := range s.blocks {
		if slices.Contains(sources, b.files.ULID) {
			old = append(old, b)
		}
	}
	if s.closed || len(old) != len(sources) { // dropped by retention or a reset meanwhile
		s.mu.Unlock()
		return nil
	}
	for _, b := range old {
		b.pin()
		defer s.unpin(b)
	}
	j := s.startJobLocked()
	defer s.endJob(j)
	dst := s.blocksDir
	s.mu.Unlock()

	var dirs []string
	var pos uint64
	known := true
	for _, b := range old {
		pos, known = max(pos, b.files.Pos), known && b.files.Pos > 0
		d := filepath.Join(work, b.files.ULID.String())
		s.mu.RLock() // against a delete half-way; one that came before is in the job too, and has no effect twice
		err := linkBlock(b.Dir(), d)
		if err == nil {
			err = b.listed().checkMutable(d)
		}
		s.mu.RUnlock()
		if err != nil {
			return s.suspect(err)
		}
		dirs = append(dirs, d)
	}
	if !known {
		pos = 0
	}
	made, err := s.compact(s.ctx, work, dirs, pos)
	if err != nil {
		return s.noteReadError(err)
	}
	fault.Point(fault.MergeBeforeInstall)
	defer s.removeFormer(dst) // a reset meanwhile found it in use
	return s.installRewritten(j, old, made, dst)
}

// compact merges the block directories into one below dest, which gets the
// position pos.
func (s *Store) compact(ctx context.Context, dest string, dirs []string, pos uint64) ([]blockFiles, error) {
	var size int64
	for _, d := range dirs {
		if err := walkFiles(d, func(_ string, n int64) error { size += n; return nil }); err != nil {
			return nil, err
		}
	}
	c, err := s.compactor(ctx, size)
	if err != nil {
		return nil, err
	}
	out, err := c.Compact(dest, dirs, nil)
	if err != nil {
		return nil, err
	}
	var made []blockFiles
	for _, id := range out {
		d := filepath.Join(dest, id.String())
		files, err := sumBlock(d, BlockFiles{ULID: id, Pos: pos})
		if err != nil {
			return nil, err
		}
		made = append(made, blockFiles{d, files})
	}
	return made, nil
}

func (s *Store) installRewritten(j *job, old []*block, made []blockFiles, dir string) error {
	var fresh []*block
	for _, f := range made {
		b, err := s.linkAndOpen(f.dir, dir, f.BlockFiles)
		if err != nil {
			closeAll(fresh)
			return err
		}
		fresh = append(fresh, b)
	}
	dels := &j.dels
	if plant.LoseDeleteAtMerge {
		dels = &[]deletion{}
	}
	err := s.catchUpAndLock(dels, fresh)
	defer s.mu.Unlock()
	gone := slices.ContainsFunc(old, func(b *block) bool { return !slices.Contains(s.blocks, b) })
	// Retention may have dropped a source: what came of it would come back.
	if err != nil || j.dead || (gone && !s.expiredLocked(old)) {
		closeAll(fresh)
		return err
	}
	s.replaceLocked(slices.DeleteFunc(slices.Clone(old), func(b *block) bool { return !slices.Contains(s.blocks, b) }), fresh)
	s.dropExpiredLocked()
	return nil
}

// expiredLocked tells whether those of the blocks that are no longer installed
// were dropped by retention: queries hide what is below the cutoff, so the
// result of a merge that contains them is still right.
func (s *Store) expiredLocked(bs []*block) bool {
	for _, b := range bs {
		if !slices.Contains(s.blocks, b) && b.MaxTime() > s.cutoff.Load() {
			return false
		}
	}
	return true
}

// Clean rewrites every block that holds deleted samples, and every frozen
// memtable that does, and returns when they are gone from the disk. Deletes
// that come later are not waited for. After a Reset meanwhile it begins again,
// with what is there then. It may run at any time, on any goroutine but the
// applier's.
func (s *Store) Clean(ctx context.Context) error {
	for {
		before := s.resetDir()
		if err := s.cleanOnce(ctx); err != nil || s.resetDir() == before {
			return err
		}
	}
}

// resetDir is another one after each Reset.
func (s *Store) resetDir() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.blocksDir
}

func (s *Store) cleanOnce(ctx context.Context) error {
	if err := s.awaitDeletesFlushed(ctx); err != nil {
		return err
	}
	s.compactMu.Lock()
	defer s.compactMu.Unlock()
	s.mu.RLock()
	var dirty []ulid.ULID
	for _, b := range s.blocks {
		if b.tombstoned() {
			dirty = append(dirty, b.files.ULID)
		}
	}
	s.mu.RUnlock()
	for _, id := range dirty {
		if err := errors.Join(ctx.Err(), s.ctx.Err()); err != nil {
			return err
		}
		if err := s.noteWriteError(s.rewrite([]ulid.ULID{id})); err != nil {
			return err
		}
		s.m.cleans.Inc()
	}
	return nil
}

// awaitDeletesFlushed waits until the memtables that hold deleted samples now
// have become blocks.
func (s *Store) awaitDeletesFlushed(ctx context.Context) error {
	defer context.AfterFunc(ctx, s.wakeWaiters)()
	s.mu.Lock()
	defer s.mu.Unlock()
	var wait []*memtable
	for _, m := range s.frozen {
		if len(m.dels) > 0 {
			wait = append(wait, m)
		}
	}
	for {
		wait = slices.DeleteFunc(wait, func(m *memtable) bool { return !slices.Contains(s.frozen, m) })
		switch {
		case s.closed:
			return ErrClosed
		case ctx.Err() != nil:
			return ctx.Err()
		case len(wait) == 0:
			return nil
		}
		s.drained.Wait()
	}
}

func (s *Store) wakeWaiters() {
	s.mu.Lock()
	s.drained.Broadcast()
	s.mu.Unlock()
}
