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
	"time"

	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/deucaliondb/deucalion/internal/fault"
	"github.com/deucaliondb/deucalion/internal/plant"
)

const (
	minSegment = int64(1 << 20)
	// bytesPerSample is what a sample takes on disk, generously; it only sizes
	// preallocations.
	bytesPerSample = 4
	// catchUpRounds is how often deletes that have come meanwhile are applied to
	// blocks without holding up those that come.
	catchUpRounds = 4
)

// flushLoop is the flusher. A failure (a full disk, say) is tried again for
// ever: the samples are in the log, and the applier is held up before memory
// runs out.
func (s *Store) flushLoop() {
	s.work("Flushing a memtable", s.FlushOne, s.kickFlush, s.m.flushFailures)
}

// FlushOne writes the oldest frozen memtable into blocks and installs them; it
// reports whether there was one. The flusher calls it; with Options.Manual the
// caller does, from one goroutine at a time.
func (s *Store) FlushOne() (bool, error) {
	s.mu.RLock()
	if len(s.frozen) == 0 || s.closed {
		s.mu.RUnlock()
		return false, nil
	}
	m := s.frozen[0]
	m.acquire()
	s.mu.RUnlock()
	defer m.release()

	raw, err := s.writeRaw(m)
	if err != nil {
		return true, s.noteWriteError(err)
	}
	fault.Point(fault.FlushBeforeInstall)
	if err := s.installFlushed(m, raw); err != nil {
		s.forgetDamagedRaw(m)
		return true, s.noteWriteError(err)
	}
	fault.Point(fault.FlushAfterInstall)
	s.m.flushes.Inc()
	s.kick(s.kickMerge)
	return true, s.makeSpare(m.head.NumSeries())
}

// writeRaw writes all samples of a frozen memtable into blocks below its own
// directory, one a partition, once: the live tier and snapshots then link them,
// each with its own deletes. The flusher and a snapshot may both ask for it. The
// caller holds a reference.
func (s *Store) writeRaw(m *memtable) ([]blockFiles, error) {
	m.rawMu.Lock()
	defer m.rawMu.Unlock()
	if m.raw != nil {
		return m.raw, nil
	}
	start := time.Now()
	dir, err := s.privateDir(filepath.Join(filepath.Base(m.dir), "raw"))
	if err != nil {
		return nil, err
	}
	raw, err := s.writeParts(m, dir)
	if err != nil { // on a full disk the next attempt needs the room
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s.m.flushSeconds.Observe(time.Since(start).Seconds())
	m.raw = raw
	return raw, nil
}

// writeParts writes the blocks of writeRaw into dir.
func (s *Store) writeParts(m *memtable, dir string) ([]blockFiles, error) {
	c, err := s.compactor(s.ctx, m.samples*bytesPerSample)
	if err != nil {
		return nil, err
	}
	parts := make([]int64, 0, len(m.parts))
	for p := range m.parts {
		parts = append(parts, p)
	}
	slices.Sort(parts)
	raw := []blockFiles{}
	for _, p := range parts {
		lo, hi := max(p*partition, m.mint), min((p+1)*partition-1, m.maxt)
		// No tombstones: together with the trimming that the writer does they would
		// panic (see deleteLocked), and snapshots want the blocks without them.
		var r tsdb.BlockReader = &memReader{m: m, mint: lo, maxt: hi, stones: tombstones.NewMemTombstones()}
		if plant.ForgetOutOfOrder {
			r = tsdb.NewRangeHead(m.head, lo, hi)
		}
		ids, err := c.Write(dir, r, lo, hi+1, nil)
		if s.opts.afterWrite != nil {
			err = s.opts.afterWrite(err)
		}
		if err != nil {
			return nil, fmt.Errorf("flush memtable: %w", err)
		}
		for _, id := range ids {
			d := filepath.Join(dir, id.String())
			files, err := sumBlock(d, BlockFiles{ULID: id, Pos: m.pos})
			if err != nil {
				return nil, err
			}
			raw = append(raw, blockFiles{d, files})
		}
	}
	return raw, nil
}

// forgetDamagedRaw has the blocks of a memtable written anew if they are not what
// was written: the samples are still in memory.
func (s *Store) forgetDamagedRaw(m *memtable) {
	m.rawMu.Lock()
	defer m.rawMu.Unlock()
	for _, r := range m.raw {
		dir := filepath.Dir(r.dir)
		if err := r.Check(dir, true, nil); err != nil {
			s.opts.Logger.Warn("A block of a memtable is damaged; it is written anew", "err", err)
			m.raw = nil
			_ = os.RemoveAll(dir)
			return
		}
	}
}

// installFlushed swaps a memtable for its blocks, with all its deletes applied.
func (s *Store) installFlushed(m *memtable, raw []blockFiles) error {
	s.mu.RLock()
	dir, waits := s.blocksDir, slices.Contains(s.frozen, m)
	s.mu.RUnlock()
	if !waits { // the store was reset, perhaps by a snapshot that has these very blocks, and dir is theirs
		return nil
	}
	fresh, err := s.openRaw(raw, dir)
	if err != nil {
		return err
	}
	dels := &m.dels
	if plant.LoseDeleteAtFlush {
		dels = &[]deletion{}
	}
	err = s.catchUpAndLock(dels, fresh)
	if i := slices.Index(s.frozen, m); err == nil && i >= 0 {
		s.frozen = slices.Delete(slices.Clone(s.frozen), i, i+1)
		s.replaceLocked(nil, fresh)
		s.dropExpiredLocked()
		s.drained.Broadcast()
		s.mu.Unlock()
		m.release()
		return nil
	}
	s.mu.Unlock()
	closeAll(fresh) // the store was reset meanwhile, or a delete failed
	s.removeFormer(dir)
	return err
}

func (s *Store) openRaw(raw []blockFiles, dir string) ([]*block, error) {
	var fresh []*block
	for _, f := range raw {
		dst := filepath.Join(dir, f.ULID.String())
		if err := os.RemoveAll(dst); err != nil { // left by an attempt that failed
			closeAll(fresh)
			return nil, err
		}
		b, err := s.linkAndOpen(f.dir, dir, f.BlockFiles)
		if err != nil {
			closeAll(fresh)
			return nil, err
		}
		fresh = append(fresh, b)
	}
	return fresh, nil
}

// catchUpAndLock applies dels, which s.mu protects and which goes on growing, to
// blocks that are to be installed. It returns with s.mu held, also after an error,
// so that no delete comes in between. Each delete fsyncs, so most are applied
// without the lock.
func (s *Store) catchUpAndLock(dels *[]deletion, fresh []*block) error {
	applied := 0
	// A client that deletes without pause must not keep this from ending: after
	// a few rounds the rest is applied with the lock held.
	for range catchUpRounds {
		s.mu.RLock()
		next := slices.Clone((*dels)[applied:])
		s.mu.RUnlock()
		if len(next) == 0 {
			break
		}
		if err := applyAll(next, fresh); err != nil {
			s.mu.Lock()
			return err
		}
		applied += len(next)
	}
	s.mu.Lock()
	return applyAll((*dels)[applied:], fresh)
}

// applyAll applies the deletes, in their order, to the blocks that they concern.
func applyAll(dels []deletion, bs []*block) error {
	for _, d := range dels {
		for _, b := range bs {
			if !d.overlaps(b.MinTime(), b.MaxTime()-1) {
				continue
			}
			if err := b.apply(d); err != nil {
				return err
			}
		}
	}
	return nil
}

func closeAll(bs []*block) {
	for _, b := range bs {
		_ = b.Close()
		_ = os.RemoveAll(b.Dir())
	}
}

// compactor writes and merges blocks of up to about size bytes until ctx ends.
// The chunk writer preallocates each segment file in full, 512 MiB by default:
// for a small block that is time, and disk space that may not be there.
func (s *Store) compactor(ctx context.Context, size int64) (*tsdb.LeveledCompactor, error) {
	segment := min(max(size, minSegment), chunks.DefaultChunkSegmentSize)
	return tsdb.NewLeveledCompactorWithOptions(ctx, nil, nil, []int64{partition}, s.pool,
		tsdb.LeveledCompactorOptions{Metrics: s.m.compactor, EnableOverlappingCompaction: true, MaxBlockChunkSegmentSize: segment})
}
