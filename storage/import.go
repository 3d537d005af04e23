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

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
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
// earlier one. All of it becomes visible at once. Nothing has changed if there is
// an error; damage, also of the blocks that are there, is an ErrDamaged. Applier only.
//
// A refused sample gets a tombstone. So from here on the blocks are like all
// others: queries, deletes, merges and snapshots need to know nothing of imports.
func (s *Store) Import(dir string, from []BlockFiles) (ImportStats, error) {
	var all ImportStats
	var fresh []*block
	for _, f := range from {
		b, st, err := s.importBlock(filepath.Join(dir, f.ULID.String()), f, fresh)
		if err != nil {
			closeAll(fresh)
			return ImportStats{}, fmt.Errorf("import block %s: %w", f.ULID, markDamage(err))
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
func (s *Store) importBlock(src string, f BlockFiles, before []*block) (*block, ImportStats, error) {
	var st ImportStats
	var stones *tombstones.MemTombstones
	err := withBlock(src, func(b *tsdb.Block) (err error) {
		stones, st, err = s.shadowed(b, f.ULID, before)
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
	if err == nil && stones.Total() > 0 {
		b.note()
	}
	return b, st, err
}

// shadowed finds the samples of b that lose against what is there.
func (s *Store) shadowed(b *tsdb.Block, id ulid.ULID, before []*block) (*tombstones.MemTombstones, ImportStats, error) {
	q, err := s.querier(b.MinTime(), b.MaxTime()-1, false)
	if err != nil {
		return nil, ImportStats{}, err
	}
	defer q.Close()
	known := s.recall(id)
	q.keep(func(t tier) bool { _, ok := known.seen[t.key()]; return !ok })
	if err := q.add(before); err != nil {
		return nil, ImportStats{}, err
	}
	lost, n, err := q.shadow(context.Background(), b, known.lost)
	stones := tombstones.NewMemTombstones()
	for ref, ivs := range known.lost {
		if lost[ref] == nil {
			stones.AddInterval(ref, ivs...)
		}
	}
	for ref, ivs := range lost {
		stones.AddInterval(ref, ivs...)
	}
	st := ImportStats{Refused: known.refused + n}
	st.Added = int64(b.Meta().Stats.NumSamples) - st.Refused
	return stones, st, err
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
		q.tiers = append(q.tiers, tier{r: b.Block, id: b.files.ULID, mint: b.MinTime(), maxt: b.MaxTime() - 1, stones: b.tombstoned()})
	}
	return nil
}

// shadow returns, for each series of b that q has too, intervals that hold the
// samples of b whose times q has, or that are in known, and no others of b; and
// how many of them are not in known.
func (q *querier) shadow(ctx context.Context, b *tsdb.Block, known map[storage.SeriesRef]tombstones.Intervals) (map[storage.SeriesRef]tombstones.Intervals, int64, error) {
	lost := map[storage.SeriesRef]tombstones.Intervals{}
	all := labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".*")
	there := q.Select(ctx, true, nil, all)
	more, refused := there.Next(), int64(0)
	if !more {
		return lost, 0, there.Err()
	}
	err := eachSeries(b, func(x blockSeries) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		for more && labels.Compare(there.At().Labels(), x.labels) < 0 {
			more = there.Next()
		}
		if !more || !labels.Equal(there.At().Labels(), x.labels) {
			return nil // its chunks need not be read
		}
		ivs, n, err := x.shadow(there.At().Iterator(nil), known[x.ref])
		if len(ivs) > 0 {
			lost[x.ref] = ivs
		}
		refused += n
		return err
	})
	return lost, refused, errors.Join(err, there.Err())
}

// shadow is querier.shadow for one series.
func (x blockSeries) shadow(it chunkenc.Iterator, known tombstones.Intervals) (ivs tombstones.Intervals, n int64, err error) {
	there, joined := it.Next(), false
	err = x.times(func(t int64) {
		for there != chunkenc.ValNone && it.AtT() < t {
			there = it.Next()
		}
		for len(known) > 0 && known[0].Maxt < t {
			known = known[1:]
		}
		old := len(known) > 0 && known[0].Mint <= t
		switch {
		case !old && (there == chunkenc.ValNone || it.AtT() != t):
			joined = false
			return
		case joined:
			ivs[len(ivs)-1].Maxt = t
		default:
			ivs = append(ivs, tombstones.Interval{Mint: t, Maxt: t})
		}
		if !old {
			n++
		}
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
