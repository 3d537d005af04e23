// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/tsdb"
)

// block is an installed block. Its tsdb.Block counts its own readers.
type block struct {
	*tsdb.Block
	files BlockFiles // of the immutable files
	// changing are the other files; Store.mu must be held to write.
	changing atomic.Pointer[[]File]

	// refs are those who need the directory: the set of blocks, and each snapshot
	// and merge that has not linked it yet.
	refs atomic.Int32
}

func (b *block) pin() { b.refs.Add(1) }

// tombstoned tells whether the block holds deleted samples. Store.mu must be
// held: a delete changes the block's meta under it.
func (b *block) tombstoned() bool { return b.Meta().Stats.NumTombstones > 0 }

// linkAndOpen hard-links the block directory src into the directory dir, which has no
// block of that name, and opens it there. An attempt that fails leaves nothing.
func (s *Store) linkAndOpen(src, dir string, f BlockFiles) (b *block, err error) {
	dst := filepath.Join(dir, f.ULID.String())
	if err = linkBlock(src, dst); err == nil {
		b, err = s.openBlock(dst, f)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dst))
	}
	return b, nil
}

func (s *Store) openBlock(dir string, f BlockFiles) (*block, error) {
	b, err := tsdb.OpenBlock(s.opts.Logger, dir, s.pool, nil)
	if err != nil {
		return nil, fmt.Errorf("open block %s: %w", dir, err)
	}
	f.MinTime, f.MaxTime = b.MinTime(), b.MaxTime() // manifests of version 1 do not have them
	x := &block{Block: b, files: f}
	var changing []File
	x.files.Files, changing = split(f.Files)
	x.changing.Store(&changing)
	x.refs.Store(1)
	return x, nil
}

func (s *Store) sortBlocksLocked() {
	slices.SortFunc(s.blocks, func(a, b *block) int {
		if a.MinTime() != b.MinTime() {
			if a.MinTime() < b.MinTime() {
				return -1
			}
			return 1
		}
		return a.Meta().ULID.Compare(b.Meta().ULID)
	})
}

// replaceLocked takes the blocks in old out of the set and puts the new ones in.
// Old blocks are closed and removed once their readers and pins are gone.
func (s *Store) replaceLocked(old, fresh []*block) {
	kept := make([]*block, 0, len(s.blocks)+len(fresh)) // old may be s.blocks itself
	for _, b := range s.blocks {
		if !slices.Contains(old, b) {
			kept = append(kept, b)
		}
	}
	s.blocks = append(kept, fresh...)
	s.sortBlocksLocked()
	for _, b := range old {
		if b.refs.Add(-1) > 0 {
			continue
		}
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			s.dispose(b)
		}()
	}
}

// unpin ends a pin. It takes s.mu to read.
func (s *Store) unpin(b *block) {
	if b.refs.Add(-1) > 0 {
		return
	}
	s.mu.RLock()
	background := !s.closed // else Close may be past its wait
	if background {
		s.wg.Add(1)
	}
	s.mu.RUnlock()
	if !background {
		s.dispose(b)
		return
	}
	go func() {
		defer s.wg.Done()
		s.dispose(b)
	}()
}

// dispose waits for a block's readers and removes it.
func (s *Store) dispose(b *block) {
	if err := b.Close(); err != nil {
		s.opts.Logger.Warn("Closing a replaced block", "block", b.Dir(), "err", err)
	}
	if err := os.RemoveAll(b.Dir()); err != nil {
		s.opts.Logger.Warn("Removing a replaced block", "block", b.Dir(), "err", err)
	}
	s.removeFormer(filepath.Dir(b.Dir()))
}

// removeFormer removes a directory of blocks if it is empty and no longer the
// one where blocks are put.
func (s *Store) removeFormer(dir string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if dir != s.blocksDir {
		_ = os.Remove(dir)
	}
}

func (s *Store) dropExpiredLocked() {
	var old []*block
	cutoff := s.cutoff.Load()
	for _, b := range s.blocks {
		if b.MaxTime() <= cutoff { // MaxTime is exclusive
			old = append(old, b)
		}
	}
	if len(old) > 0 {
		s.replaceLocked(old, nil)
	}
}

func (s *Store) blocksSizeLocked() (n int64) {
	for _, b := range s.blocks {
		n += b.Size()
	}
	return n
}

// BlocksSize is the number of bytes of all blocks.
func (s *Store) BlocksSize() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.blocksSizeLocked()
}

// BlockMetas describes the installed blocks, by min time.
func (s *Store) BlockMetas() []tsdb.BlockMeta {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ms := make([]tsdb.BlockMeta, len(s.blocks))
	for i, b := range s.blocks {
		ms[i] = b.Meta()
	}
	return ms
}

// CutoffForSize returns the lowest cutoff that brings the blocks down to limit
// bytes. ok is false when they are within the limit as they are.
func (s *Store) CutoffForSize(limit int64) (cutoff int64, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	size := s.blocksSizeLocked()
	byEnd := slices.Clone(s.blocks)
	slices.SortFunc(byEnd, func(a, b *block) int { return int(min(1, max(-1, a.MaxTime()-b.MaxTime()))) })
	for _, b := range byEnd {
		if size <= limit {
			break
		}
		size -= b.Size()
		cutoff, ok = b.MaxTime(), true
	}
	return cutoff, ok
}
