// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// ImportStats counts the samples of an import.
type ImportStats struct {
	Added   int64
	Refused int64 // there was a sample of that series at that time
}

// Import adds blocks made by PrepareImport, which lie below dir and stay there:
// they are hard-linked. What is there already wins, and of two blocks the
// earlier one. All of it becomes visible at once. visit is called for each series
// of each block, in order, with the newest sample that the block has of it,
// whether that is refused or not. Nothing has changed if there is an error.
// Applier only.
//
// A refused sample gets a tombstone. So from here on the blocks are like all
// others: queries, deletes, merges and snapshots need to know nothing of imports.
func (s *Store) Import(dir string, from []BlockFiles, visit func(ls labels.Labels, lastT int64, newest chunkenc.Encoding)) (ImportStats, error) {
	var all ImportStats
	var fresh []*block
	for _, f := range from {
		b, st, err := s.importBlock(filepath.Join(dir, f.ULID.String()), f, fresh, visit)
		if err != nil {
			closeAll(fresh)
			return ImportStats{}, fmt.Errorf("import block %s: %w", f.ULID, err)
		}
		all.Added += st.Added
		all.Refused += st.Refused
		if b != nil {
			fresh = append(fresh, b)
		}
	}
	s.mu.Lock()
	s.replaceLocked(nil, fresh)
	s.dropExpiredLocked()
	s.mu.Unlock()
	s.kick(s.kickMerge)
	return all, nil
}

// importBlock makes a block of the live directory of the one in src, or none if
// nothing would be left of it. before are blocks that come first and are not
// installed yet.
func (s *Store) importBlock(src string, f BlockFiles, before []*block, visit func(labels.Labels, int64, chunkenc.Encoding)) (*block, ImportStats, error) {
	var st ImportStats
	var stones *tombstones.MemTombstones
	err := withBlock(src, func(b *tsdb.Block) (err error) {
		stones, st, err = s.shadowed(b, before, visit)
		return err
	})
	if err != nil || st.Added == 0 {
		return nil, st, err
	}
	dst := filepath.Join(s.blocksDir, f.ULID.String())
	if err := os.RemoveAll(dst); err != nil { // left by an attempt that failed
		return nil, st, err
	}
	if err := linkBlock(src, dst); err != nil {
		return nil, st, err
	}
	if err := writeStones(dst, stones); err != nil {
		return nil, st, errors.Join(err, os.RemoveAll(dst))
	}
	f.Pos = s.pos
	b, err := s.openBlock(dst, f)
	return b, st, err
}

// shadowed finds the samples of b that lose against what is there.
func (s *Store) shadowed(b *tsdb.Block, before []*block, visit func(labels.Labels, int64, chunkenc.Encoding)) (*tombstones.MemTombstones, ImportStats, error) {
	q, err := s.querier(b.MinTime(), b.MaxTime()-1, false)
	if err != nil {
		return nil, ImportStats{}, err
	}
	defer q.Close()
	if err := q.add(before); err != nil {
		return nil, ImportStats{}, err
	}
	all := labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".*")
	there := q.Select(context.Background(), true, nil, all)
	stones, st := tombstones.NewMemTombstones(), ImportStats{}
	more := there.Next()
	err = eachSeries(b, func(x blockSeries) error {
		newest, err := x.newest()
		if err != nil {
			return err
		}
		visit(x.labels, newest.MaxTime, newest.Chunk.Encoding())
		for more && labels.Compare(there.At().Labels(), x.labels) < 0 {
			more = there.Next()
		}
		if !more || !labels.Equal(there.At().Labels(), x.labels) {
			return nil // its chunks need not be read
		}
		ivs, n, err := x.shadow(there.At().Iterator(nil))
		if len(ivs) > 0 {
			stones.AddInterval(x.ref, ivs...)
		}
		st.Refused += n
		return err
	})
	st.Added = int64(b.Meta().Stats.NumSamples) - st.Refused
	return stones, st, errors.Join(err, there.Err())
}

// add makes q see blocks that are not installed.
func (q *querier) add(bs []*block) error {
	for _, b := range bs {
		if b.MinTime() > q.maxt || q.mint >= b.MaxTime() {
			continue
		}
		p, err := tsdb.NewBlockQuerier(b, q.mint, q.maxt)
		if err != nil {
			return err
		}
		q.parts = append(q.parts, p)
		q.tiers = append(q.tiers, tier{r: b.Block, mint: b.MinTime(), maxt: b.MaxTime() - 1, stones: b.tombstoned()})
	}
	return nil
}

// shadow returns intervals that hold those n samples of x whose times it has too,
// and no others.
func (x blockSeries) shadow(it chunkenc.Iterator) (ivs tombstones.Intervals, n int64, err error) {
	there, joined := it.Next(), false
	err = x.times(func(t int64) {
		for there != chunkenc.ValNone && it.AtT() < t {
			there = it.Next()
		}
		switch {
		case there == chunkenc.ValNone || it.AtT() != t:
			joined = false
			return
		case joined:
			ivs[len(ivs)-1].Maxt = t
		default:
			ivs = append(ivs, tombstones.Interval{Mint: t, Maxt: t})
		}
		n++
		joined = true
	})
	return ivs, n, errors.Join(err, it.Err())
}

// writeStones gives the block in dir, which has none, its tombstones. It replaces
// files and changes none: others have links to them.
func writeStones(dir string, stones *tombstones.MemTombstones) error {
	if stones.Total() == 0 {
		return nil
	}
	if _, err := tombstones.WriteFile(slog.New(slog.DiscardHandler), dir, stones); err != nil {
		return err
	}
	m, err := readMeta(dir)
	if err != nil {
		return err
	}
	m.Stats.NumTombstones = stones.Total()
	return writeMeta(dir, m)
}

// writeMeta replaces meta.json, and syncs it.
func writeMeta(dir string, m tsdb.BlockMeta) error {
	m.Version = 1
	b, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	name := filepath.Join(dir, "meta.json")
	f, err := os.Create(name + ".tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}
