// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

// ErrImport marks a block that cannot be imported.
var ErrImport = errors.New("block cannot be imported")

// Prepared is a block that may be imported.
type Prepared struct {
	BlockFiles
	Series, Samples uint64
}

// PrepareImport makes in the directory dst a block of our own with the samples of
// the foreign one in the directory src, which may be changed. All of it is read:
// the chunks' checksums, the order of series and samples, and what series and
// sample say to each of them; an error of theirs, or anything wrong, refuses the
// block (ErrImport). The result has a name that nobody else uses, no tombstones, and
// is on disk, but for the names in dst. Not for the applier's goroutine.
func (s *Store) PrepareImport(ctx context.Context, src, dst string, series func(labels.Labels) error, sample func(Sample) error) (Prepared, error) {
	m, err := readMeta(src)
	if err != nil {
		return Prepared{}, fmt.Errorf("%w: %w", ErrImport, err)
	}
	// Written anew, for then the index is one that we made, without what others
	// may have left out of theirs or put into it. The bytes of chunks are copied.
	made, err := s.compact(ctx, dst, []string{src}, 0)
	switch {
	case ctx.Err() != nil:
		return Prepared{}, ctx.Err()
	case err != nil:
		return Prepared{}, fmt.Errorf("%w: %s: %w", ErrImport, m.ULID, err)
	case len(made) == 0:
		return Prepared{}, fmt.Errorf("%w: %s holds no samples", ErrImport, m.ULID)
	}
	c := checker{ctx: ctx, series: series, sample: sample, mint: math.MaxInt64, maxt: math.MinInt64}
	if err := withBlock(made[0].dir, c.block); err != nil {
		if ctx.Err() != nil {
			return Prepared{}, ctx.Err()
		}
		return Prepared{}, fmt.Errorf("%w: %s: %w", ErrImport, m.ULID, err)
	}
	out := Prepared{Series: c.nSeries, Samples: c.nSamples}
	out.BlockFiles, err = s.adopt(made[0], c.mint, c.maxt)
	return out, err
}

// adopt gives a block the bounds that its samples have.
func (s *Store) adopt(b blockFiles, mint, maxt int64) (BlockFiles, error) {
	m, err := readMeta(b.dir)
	if err != nil {
		return BlockFiles{}, err
	}
	m.MinTime, m.MaxTime = mint, maxt+1
	m.Compaction = tsdb.BlockMetaCompaction{Level: 1, Sources: m.Compaction.Sources}
	m.Compaction.Sources = append(m.Compaction.Sources[:0:0], m.ULID)
	if err := writeMeta(b.dir, m); err != nil {
		return BlockFiles{}, err
	}
	if err := SyncTree(filepath.Clean(b.dir)); err != nil {
		return BlockFiles{}, err
	}
	return sumBlock(b.dir, b.immutable())
}

// checker looks at every sample of a block.
type checker struct {
	ctx               context.Context
	series            func(labels.Labels) error
	sample            func(Sample) error
	last              labels.Labels
	mint, maxt        int64
	nSeries, nSamples uint64
}

func (c *checker) block(b *tsdb.Block) error {
	return eachSeries(b, func(x blockSeries) error {
		if c.nSeries > 0 && labels.Compare(c.last, x.labels) >= 0 {
			return fmt.Errorf("series %s comes after %s", x.labels, c.last)
		}
		c.last = x.labels
		c.nSeries++
		err := c.ctx.Err()
		if err == nil {
			err = c.series(x.labels)
		}
		if err == nil {
			err = c.samples(x)
		}
		if err != nil {
			return fmt.Errorf("series %s: %w", x.labels, err)
		}
		return nil
	})
}

func (c *checker) samples(x blockSeries) error {
	last := int64(math.MinInt64)
	var it chunkenc.Iterator
	for _, m := range x.chunks {
		chk, err := x.open(m)
		if err != nil {
			return err
		}
		switch e := chk.Encoding(); e {
		case chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		default:
			return fmt.Errorf("chunk encoding %s is not one that can be stored", e)
		}
		first := true
		it = chk.Iterator(it)
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			t := it.AtT()
			if t <= last && (last != math.MinInt64 || t < last) {
				return fmt.Errorf("sample at %d comes after the one at %d", t, last)
			}
			if first && t != m.MinTime {
				return fmt.Errorf("chunk begins at %d, the index says %d", t, m.MinTime)
			}
			last, first = t, false
			if err := c.sample(sampleAt(it, vt)); err != nil {
				return fmt.Errorf("sample at %d: %w", t, err)
			}
			c.nSamples++
		}
		if err := it.Err(); err != nil {
			return err
		}
		if first || last != m.MaxTime {
			return fmt.Errorf("chunk ends at %d, the index says %d", last, m.MaxTime)
		}
		c.mint, c.maxt = min(c.mint, m.MinTime), max(c.maxt, m.MaxTime)
	}
	return nil
}

func sampleAt(it chunkenc.Iterator, vt chunkenc.ValueType) (x Sample) {
	switch vt {
	case chunkenc.ValFloat:
		x.T, x.V = it.At()
	case chunkenc.ValHistogram:
		x.T, x.H = it.AtHistogram(nil)
	case chunkenc.ValFloatHistogram:
		x.T, x.FH = it.AtFloatHistogram(nil)
	}
	return x
}

// blockSeries is one series of a block.
type blockSeries struct {
	ref    storage.SeriesRef
	labels labels.Labels
	chunks []chunks.Meta // in order of time, at least one
	reader tsdb.ChunkReader
}

// eachSeries calls f for each series of the block, in the order of their labels.
// Tombstones are not looked at. The labels may be kept, the rest not.
func eachSeries(b *tsdb.Block, f func(blockSeries) error) error {
	ir, err := b.Index()
	if err != nil {
		return err
	}
	defer ir.Close()
	cr, err := b.Chunks()
	if err != nil {
		return err
	}
	defer cr.Close()
	k, v := index.AllPostingsKey()
	p, err := ir.Postings(context.Background(), k, v)
	if err != nil {
		return err
	}
	p = ir.SortedPostings(p)
	x := blockSeries{reader: cr}
	var sb labels.ScratchBuilder
	for p.Next() {
		x.ref = p.At()
		if err := ir.Series(x.ref, &sb, &x.chunks); err != nil {
			return err
		}
		x.labels = owned(sb.Labels())
		if len(x.chunks) == 0 {
			return fmt.Errorf("series %s has no chunks", x.labels)
		}
		if err := f(x); err != nil {
			return err
		}
	}
	return p.Err()
}

// owned copies labels, whose strings may lie in a mapped file.
func owned(ls labels.Labels) labels.Labels {
	sb := labels.NewScratchBuilder(ls.Len())
	ls.Range(func(l labels.Label) { sb.Add(string([]byte(l.Name)), string([]byte(l.Value))) })
	return sb.Labels()
}

func (x blockSeries) open(m chunks.Meta) (chunkenc.Chunk, error) {
	c, iterable, err := x.reader.ChunkOrIterable(m)
	if err == nil && iterable != nil {
		err = errors.New("a chunk of a block is none")
	}
	return c, err
}

// NewestOf calls visit for each series of the block below dir, in the order of
// their labels, with the time of its newest sample and the type of that.
func NewestOf(dir string, f BlockFiles, visit func(ls labels.Labels, lastT int64, newest chunkenc.Encoding)) error {
	return markDamage(withBlock(filepath.Join(dir, f.ULID.String()), func(b *tsdb.Block) error {
		return eachSeries(b, func(x blockSeries) error {
			m := x.chunks[len(x.chunks)-1]
			c, err := x.open(m)
			if err == nil {
				visit(x.labels, m.MaxTime, c.Encoding())
			}
			return err
		})
	}))
}

// times calls f with the timestamp of each sample.
func (x blockSeries) times(f func(t int64)) error {
	var it chunkenc.Iterator
	for _, m := range x.chunks {
		c, err := x.open(m)
		if err != nil {
			return err
		}
		it = c.Iterator(it)
		for it.Next() != chunkenc.ValNone {
			f(it.AtT())
		}
		if err := it.Err(); err != nil {
			return err
		}
	}
	return nil
}
