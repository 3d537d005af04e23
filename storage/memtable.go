// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// headChunks is where a head writes its chunks, below its directory.
const headChunks = "chunks_head"

// memtable is a head without a WAL. It is born active, is frozen once, then
// flushed, and goes away with its last reference.
type memtable struct {
	gen  uint64 // unique within the process; series refs are valid within one generation only
	dir  string
	head *tsdb.Head
	log  *slog.Logger

	// Written by the applier while the memtable is active, read after its freeze.
	parts    map[int64]struct{} // numbers of the partitions that have samples
	lastPart int64
	samples  int64

	// Set by the freeze, constant after it; closed bounds of all samples.
	mint, maxt int64
	pos        uint64 // of the newest entry that it may hold samples of

	// Store.mu protects the following.
	stones *tombstones.MemTombstones // replaced, never changed: readers keep theirs
	dels   []deletion                // what stones was made of, in log order

	// rawMu protects the following; it is held while raw is written.
	rawMu sync.Mutex
	// raw are the blocks that hold all samples of this memtable, none of dels
	// applied; nil as long as they are not written.
	raw []blockFiles

	refs atomic.Int64 // starts at 1, the reference of the tier list
	drop sync.Once
}

// stripes is how many parts the head divides its series maps into, for about so
// many series. Four series to a part: a map of up to eight is searched without
// hashing, and each sample looks its series up twice. Too many parts cost memory
// and time for each freeze.
func stripes(series uint64) int {
	n := uint64(1024)
	for n < 1<<16 && 4*n < series {
		n *= 2
	}
	return int(n)
}

// newMemtable makes an empty memtable that expects about so many series.
func newMemtable(dir string, gen uint64, pool chunkenc.Pool, series uint64, log *slog.Logger) (*memtable, error) {
	d := filepath.Join(dir, fmt.Sprintf("mem-%d", gen))
	if err := os.MkdirAll(d, 0o777); err != nil {
		return nil, err
	}
	o := tsdb.DefaultHeadOptions()
	o.ChunkDirRoot = d
	o.ChunkRange = partition
	o.ChunkPool = pool
	o.StripeSize = stripes(series)
	o.OutOfOrderTimeWindow.Store(openWindow)
	h, err := tsdb.NewHead(nil, nil, nil, nil, o, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open memtable: %w", err), os.RemoveAll(d))
	}
	if err := h.Init(math.MinInt64); err != nil {
		return nil, errors.Join(fmt.Errorf("init memtable: %w", err), h.Close(), os.RemoveAll(d))
	}
	m := &memtable{
		gen: gen, dir: d, head: h, log: log,
		parts: map[int64]struct{}{}, lastPart: math.MinInt64,
		stones: tombstones.NewMemTombstones(),
	}
	m.refs.Store(1)
	return m, nil
}

// bounds returns the closed time range of all samples, in order or not. An
// empty memtable has mint > maxt.
func (m *memtable) bounds() (mint, maxt int64) {
	return min(m.head.MinTime(), m.head.MinOOOTime()), max(m.head.MaxTime(), m.head.MaxOOOTime())
}

func (m *memtable) empty() bool { return m.head.NumSeries() == 0 }

func (m *memtable) hasOutOfOrder() bool { return m.head.MinOOOTime() <= m.head.MaxOOOTime() }

func (m *memtable) acquire() { m.refs.Add(1) }

// release gives a reference back; the last one frees memory and files.
func (m *memtable) release() {
	if m.refs.Add(-1) > 0 {
		return
	}
	m.drop.Do(func() {
		// The head owns open files only if it has out-of-order chunks, so without
		// them there is nothing to close and the garbage collector does it all.
		if m.hasOutOfOrder() {
			if err := m.close(); err != nil {
				m.log.Warn("Closing a memtable; its files stay open, empty, until this process ends", "err", err)
				m.emptyChunks()
			}
		}
		_ = os.RemoveAll(m.dir)
	})
}

// close closes the head, which writes all its full in-order chunks to the disk
// first, though nobody will read them, and panics if the disk is full.
func (m *memtable) close() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("close head: %v", p)
		}
	}()
	return m.head.Close()
}

// emptyChunks gives the room of the head's own files back, some of which are open
// still. Of other files below m.dir, blocks, there are hard links elsewhere.
func (m *memtable) emptyChunks() {
	names, _ := filepath.Glob(filepath.Join(m.dir, headChunks, "*"))
	for _, name := range names {
		_ = os.Truncate(name, 0)
	}
}

// noteTime records that the partition of t has a sample. Applier only.
func (m *memtable) noteTime(t int64) {
	m.samples++
	if p := floorDiv(t, partition); p != m.lastPart {
		m.lastPart = p
		m.parts[p] = struct{}{}
	}
}

// reader is the memtable as a tsdb.BlockReader: in-order and out-of-order
// samples alike, restricted to [mint, maxt], with the given tombstones.
type memReader struct {
	m          *memtable
	mint, maxt int64
	stones     *tombstones.MemTombstones
}

func (r *memReader) Index() (tsdb.IndexReader, error) {
	return tsdb.NewHeadAndOOOIndexReader(r.m.head, r.mint, r.mint, r.maxt, 0), nil
}

func (r *memReader) Chunks() (tsdb.ChunkReader, error) {
	return tsdb.NewHeadAndOOOChunkReader(r.m.head, r.mint, r.maxt, nil, nil, 0), nil
}

func (r *memReader) Tombstones() (tombstones.Reader, error) { return sharedStones{r.stones}, nil }

func (r *memReader) Meta() tsdb.BlockMeta {
	m := r.m.head.Meta()
	m.MinTime, m.MaxTime = r.mint, r.maxt
	return m
}

func (r *memReader) Size() int64 { return 0 }

// sharedStones keeps a reader's Close from emptying tombstones that others read.
type sharedStones struct{ *tombstones.MemTombstones }

func (sharedStones) Close() error { return nil }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && a < 0 {
		q--
	}
	return q
}
