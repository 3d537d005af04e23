// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Store holds the samples of one node. See the package comment for who may
// call what.
type Store struct {
	opts   Options
	pool   chunkenc.Pool
	m      *metrics
	cutoff atomic.Int64

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	gen atomic.Uint64 // numbers memtables and private directories

	// compactMu makes merge and clean take turns: both replace blocks.
	compactMu sync.Mutex
	kickFlush chan struct{}
	kickMerge chan struct{}
	kickScrub chan struct{}
	lowDisk   atomic.Bool

	// mu protects the following.
	mu        sync.RWMutex
	active    *memtable
	frozen    []*memtable // oldest first
	blocks    []*block    // by min time
	blocksDir string      // where blocks are; a new one after each Reset
	spare     *memtable   // made in the background, so that a freeze need not wait for the disk
	jobs      map[*job]struct{}
	unlinked  map[*Snapshot]struct{} // snapshots that are not released, see Snapshot.pinned
	ahead     map[ulid.ULID]*ahead   // of blocks that are to be imported
	deletes   uint64                 // grows with each Delete
	drained   *sync.Cond             // a frozen memtable went away; L is mu
	closed    bool

	activeSince int64  // largest timestamp of the log when active was made; applier only
	pos         uint64 // see SetPosition; applier only
}

// Open empties o.Dir and opens an empty store in it.
func Open(o Options) (*Store, error) {
	o.setDefaults()
	if err := os.RemoveAll(o.Dir); err != nil {
		return nil, fmt.Errorf("empty live directory: %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o777); err != nil {
		return nil, err
	}
	s := &Store{
		opts: o, pool: chunkenc.NewPool(), jobs: map[*job]struct{}{}, unlinked: map[*Snapshot]struct{}{},
		ahead:     map[ulid.ULID]*ahead{},
		kickFlush: make(chan struct{}, 1), kickMerge: make(chan struct{}, 1),
		kickScrub: make(chan struct{}, 1),
	}
	s.drained = sync.NewCond(&s.mu)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.m = newMetrics(o.Registerer, s)
	if err := s.Reset("", nil, NoTime, NoTime); err != nil {
		s.cancel()
		return nil, err
	}
	if !o.Manual {
		s.wg.Add(3)
		go s.flushLoop()
		go s.mergeLoop()
		go s.scrubLoop()
	}
	return s, nil
}

// Reset replaces the content of the store by the listed blocks, which are
// hard-linked from dir (so both must be on one file system), and sets the
// cutoff and the largest timestamp of the log. Running flushes and merges are
// discarded; running queries keep what they read. On an error the store is
// unchanged. Applier only.
func (s *Store) Reset(dir string, from []BlockFiles, cutoff, maxT int64) error {
	blocksDir, err := s.privateDir("blocks")
	if err != nil {
		return err
	}
	var fresh []*block
	undo := func(err error) error {
		for _, b := range fresh {
			b.Close()
		}
		os.RemoveAll(blocksDir)
		return err
	}
	for _, f := range from {
		b, err := s.linkAndOpen(filepath.Join(dir, f.ULID.String()), blocksDir, f)
		if err != nil {
			return undo(err)
		}
		fresh = append(fresh, b)
	}
	var series uint64
	for _, b := range fresh {
		series = max(series, b.Meta().Stats.NumSeries)
	}
	active, err := s.newMemtable(series)
	if err != nil {
		return undo(err)
	}
	s.mu.Lock()
	mems, former := append(s.frozen, s.active), s.blocksDir
	s.active, s.frozen, s.blocksDir = active, nil, blocksDir
	s.replaceLocked(s.blocks, fresh)
	for j := range s.jobs {
		j.dead = true
	}
	s.ahead = map[ulid.ULID]*ahead{}
	s.deletes++
	s.cutoff.Store(cutoff)
	s.activeSince = maxT
	s.drained.Broadcast()
	s.mu.Unlock()
	s.removeFormer(former) // if it had no blocks
	for _, m := range mems {
		if m != nil {
			m.release()
		}
	}
	s.kick(s.kickMerge)
	return nil
}

// kick wakes a background goroutine; a wake-up that is pending already is enough.
func (s *Store) kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *Store) newMemtable(series uint64) (*memtable, error) {
	return newMemtable(s.opts.Dir, s.gen.Add(1), s.pool, series, s.opts.Logger)
}

// privateDir makes a new empty directory below the live one.
func (s *Store) privateDir(kind string) (string, error) {
	d := filepath.Join(s.opts.Dir, fmt.Sprintf("%s-%d", kind, s.gen.Add(1)))
	return d, os.MkdirAll(d, 0o777)
}

// Interrupt ends flushes, merges and cleans that are under way, with an error, and lets none begin. Reads go on until
// Close, which is to follow.
func (s *Store) Interrupt() { s.cancel() }

// Close stops the background work and waits for it, and for running queries'
// blocks. Nothing is flushed: what matters is in the log.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.cancel()
	s.drained.Broadcast()
	s.mu.Unlock()
	s.wg.Wait()

	s.mu.Lock()
	for j := range s.jobs {
		j.dead = true
	}
	mems := append(s.frozen, s.active, s.spare)
	s.active, s.frozen, s.spare = nil, nil, nil
	s.mu.Unlock()
	for _, m := range mems {
		if m != nil {
			m.release()
		}
	}
	return s.closeBlocks()
}

func (s *Store) closeBlocks() error {
	s.mu.Lock()
	bs := s.blocks
	s.blocks = nil
	s.mu.Unlock()
	var first error
	for _, b := range bs {
		if err := b.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// SetPosition tells the position in the log of what is appended and deleted from
// now on. Blocks carry it, see BlockFiles.Pos. Applier only.
func (s *Store) SetPosition(pos uint64) { s.pos = pos }

// SetLowDisk tells whether the disk is nearly full. While it is, no blocks are
// merged: a merge needs room for its result before it frees that of its sources.
func (s *Store) SetLowDisk(low bool) {
	s.lowDisk.Store(low)
	s.kick(s.kickMerge)
}

// LowDisk is what SetLowDisk was told last.
func (s *Store) LowDisk() bool { return s.lowDisk.Load() }

// Cutoff is the retention limit in milliseconds: samples below it are gone.
func (s *Store) Cutoff() int64 { return s.cutoff.Load() }

// SetCutoff raises the retention limit; it never lowers it. Blocks wholly
// below are dropped. Applier only.
func (s *Store) SetCutoff(t int64) {
	if t <= s.cutoff.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutoff.Store(t)
	s.dropExpiredLocked()
}
