// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
)

// Snapshot holds the samples of one moment, by hard links and references,
// until Release. Any goroutine may use it.
type Snapshot struct {
	s      *Store
	dir    string // hard links of the blocks, with the tombstones of that moment
	blocks []BlockFiles
	// pinned are the blocks that are not in dir yet, else nil. Linking takes the
	// disk's time, which the applier does not have: Persist does it, or a delete
	// that is about to change a block. Who holds Store.mu to read and persists, or
	// holds it to write, may change it.
	pinned []*block
	mems   []frozenAt
	cutoff int64
	once   sync.Once
}

// frozenAt is a frozen memtable with the deletes that it had.
type frozenAt struct {
	m    *memtable
	dels []deletion
}

// Snapshot freezes the active memtable and takes hold of all samples. It takes
// milliseconds and copies nothing. Applier only.
func (s *Store) Snapshot() (*Snapshot, error) {
	if err := s.Freeze(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &Snapshot{s: s, dir: filepath.Join(s.opts.Dir, fmt.Sprintf("pin-%d", s.gen.Add(1))), cutoff: s.cutoff.Load()}
	for _, b := range s.blocks {
		b.pin()
		p.pinned = append(p.pinned, b)
		p.blocks = append(p.blocks, b.listed())
	}
	for _, m := range s.frozen {
		m.acquire()
		p.mems = append(p.mems, frozenAt{m, slices.Clone(m.dels)})
	}
	s.unlinked[p] = struct{}{}
	return p, nil
}

// linkLocked links pinned block i and returns it if it was still to be done. An
// attempt that failed before may have left something.
func (p *Snapshot) linkLocked(i int) (*block, error) {
	b := p.pinned[i]
	if b == nil {
		return nil, nil
	}
	dst := filepath.Join(p.dir, b.files.ULID.String())
	if err := os.RemoveAll(dst); err != nil {
		return nil, err
	}
	if err := linkBlock(b.Dir(), dst); err != nil {
		return nil, fmt.Errorf("link block: %w", err)
	}
	p.pinned[i] = nil
	return b, nil
}

// linkAll links what is left, block by block, so that the applier never waits
// for more than one.
func (p *Snapshot) linkAll() error {
	for i := range p.pinned {
		p.s.mu.RLock()
		b, err := p.linkLocked(i)
		p.s.mu.RUnlock()
		if err != nil {
			return err
		}
		if b != nil {
			p.s.unpin(b)
		}
	}
	return nil
}

// saveForSnapshotsLocked links a block for the snapshots that still need it as it
// is, before a delete changes it. The set of blocks holds a reference, so giving
// the snapshots' ones back never disposes of it here.
func (s *Store) saveForSnapshotsLocked(b *block) error {
	for p := range s.unlinked {
		i := slices.Index(p.pinned, b)
		if i < 0 {
			continue
		}
		if _, err := p.linkLocked(i); err != nil {
			return err
		}
		b.refs.Add(-1)
	}
	return nil
}

// Release gives up what the snapshot holds. What Persist made stays.
func (p *Snapshot) Release() {
	p.once.Do(func() {
		p.s.mu.Lock()
		delete(p.s.unlinked, p)
		left := p.pinned
		p.pinned = nil
		p.s.mu.Unlock()
		for _, b := range left {
			if b != nil {
				p.s.unpin(b)
			}
		}
		for _, f := range p.mems {
			f.m.release()
		}
		_ = os.RemoveAll(p.dir)
	})
}

// Persist puts the samples as blocks into dst, an existing directory on the
// same file system, and returns their files with checksums. Memtables are
// flushed for it; data that is in blocks already is linked, not copied. When it
// returns, everything below dst is on disk. Not for the applier's goroutine.
func (p *Snapshot) Persist(ctx context.Context, dst string) ([]BlockFiles, error) {
	out, err := p.persist(ctx, dst, false)
	return out, p.s.noteWriteError(err)
}

// PersistClean is Persist for other readers of the directory: deleted and
// expired samples are really gone from its blocks. (A stock Prometheus knows no
// cutoff, and panics on a series with two tombstones, see deleteLocked.)
func (p *Snapshot) PersistClean(ctx context.Context, dst string) ([]BlockFiles, error) {
	out, err := p.persist(ctx, dst, true)
	return out, p.s.noteWriteError(err)
}

func (p *Snapshot) persist(ctx context.Context, dst string, clean bool) ([]BlockFiles, error) {
	if err := p.linkAll(); err != nil {
		return nil, err
	}
	var all []blockFiles
	for _, f := range p.blocks {
		all = append(all, blockFiles{filepath.Join(p.dir, f.ULID.String()), f})
	}
	for _, f := range p.mems {
		if err := errors.Join(ctx.Err(), p.s.ctx.Err()); err != nil {
			return nil, err
		}
		// Not left to the flusher: after a Reset it no longer knows the memtable.
		raw, err := p.s.writeRaw(f.m)
		if err != nil {
			return nil, err
		}
		for _, r := range raw {
			d := filepath.Join(p.dir, r.ULID.String())
			if err := p.linkDeleted(r, d, f.dels); err != nil {
				return nil, p.s.suspect(err)
			}
			if len(f.dels) > 0 {
				r.BlockFiles = r.immutable()
			}
			all = append(all, blockFiles{d, r.BlockFiles})
		}
	}
	var out []BlockFiles
	for _, b := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		fs, err := p.export(ctx, b, dst, clean)
		if err != nil {
			return nil, p.s.suspect(err)
		}
		out = append(out, fs...)
	}
	return out, SyncTree(dst)
}

// linkDeleted links a flushed memtable's block to dir and applies the deletes.
// A Persist that failed before may have left dir there.
func (p *Snapshot) linkDeleted(r blockFiles, dir string, dels []deletion) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := linkBlock(r.dir, dir); err != nil {
		return err
	}
	if len(dels) == 0 {
		return nil
	}
	if err := r.checkMutable(dir); err != nil {
		return err
	}
	return withBlock(dir, func(b *tsdb.Block) error {
		for _, d := range dels {
			if err := d.apply(b); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *Snapshot) export(ctx context.Context, b blockFiles, dst string, clean bool) ([]BlockFiles, error) {
	dirty := false
	if clean {
		err := b.checkMutable(b.dir)
		if err != nil {
			return nil, err
		}
		if dirty, err = p.expire(b.dir); err != nil {
			return nil, err
		}
		b.BlockFiles = b.immutable() // it may have written them anew
	}
	if dirty {
		made, err := p.s.compact(ctx, dst, []string{b.dir}, b.Pos)
		var out []BlockFiles
		for _, m := range made {
			out = append(out, m.BlockFiles)
		}
		return out, err
	}
	to := filepath.Join(dst, b.ULID.String())
	if err := linkBlock(b.dir, to); err != nil {
		return nil, err
	}
	files, err := sumBlock(to, b.BlockFiles)
	return []BlockFiles{files}, err
}

// expire deletes what is below the cutoff from a private block, and tells
// whether the block has any tombstones.
func (p *Snapshot) expire(dir string) (dirty bool, err error) {
	err = withBlock(dir, func(b *tsdb.Block) error {
		if b.MinTime() < p.cutoff {
			all := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".*")}
			d := deletion{b.MinTime(), p.cutoff - 1, [][]*labels.Matcher{all}}
			if err := d.apply(b); err != nil {
				return err
			}
		}
		dirty = b.Meta().Stats.NumTombstones > 0
		return nil
	})
	return dirty, err
}

func withBlock(dir string, f func(*tsdb.Block) error) error {
	b, err := tsdb.OpenBlock(nil, dir, nil, nil)
	if err != nil {
		return fmt.Errorf("open block %s: %w", dir, err)
	}
	return errors.Join(f(b), b.Close())
}
