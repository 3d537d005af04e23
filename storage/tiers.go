// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"math"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// tier is one source of a query: a memtable or a block.
type tier struct {
	r          tsdb.BlockReader
	id         ulid.ULID // of a block; a delete may be writing its meta
	m          *memtable // nil for a block
	mint, maxt int64     // closed bounds of its samples
	stones     bool      // it may hold deleted samples
	live       bool      // it goes on changing
}

// within tells whether the index of the tier alone answers which labels have
// samples in [mint, maxt]: every series in it has one there.
func (t tier) within(mint, maxt int64) bool { return !t.stones && mint <= t.mint && t.maxt <= maxt }

// tiersLocked lists the tiers that may have samples in [mint, maxt]. Memtables
// among them are acquired; s.mu is held to read, and until the readers of the
// blocks are open.
func (s *Store) tiersLocked(mint, maxt int64) []tier {
	var ts []tier
	for _, b := range s.blocks {
		if b.MinTime() <= maxt && mint < b.MaxTime() {
			ts = append(ts, tier{r: b.Block, id: b.files.ULID, mint: b.MinTime(), maxt: b.MaxTime() - 1, stones: b.tombstoned()})
		}
	}
	for _, m := range s.frozen {
		if m.mint <= maxt && mint <= m.maxt {
			m.acquire()
			r := &memReader{m: m, mint: max(m.mint, mint), maxt: min(m.maxt, maxt), stones: m.stones}
			ts = append(ts, tier{r: r, m: m, mint: m.mint, maxt: m.maxt, stones: len(m.dels) > 0})
		}
	}
	if m := s.active; m != nil && !m.empty() {
		if lo, hi := m.bounds(); lo <= maxt && mint <= hi {
			m.acquire()
			ts = append(ts, tier{r: m.liveReader(mint, maxt), m: m, mint: lo, maxt: hi, live: true})
		}
	}
	return ts
}

// liveReader reads the active memtable. Without out-of-order samples the head's
// own range reader serves, which isolates queries from half-committed entries.
func (m *memtable) liveReader(mint, maxt int64) tsdb.BlockReader {
	if m.hasOutOfOrder() {
		return &memReader{m: m, mint: mint, maxt: maxt, stones: tombstones.NewMemTombstones()}
	}
	return tsdb.NewRangeHead(m.head, mint, maxt)
}

func releaseTiers(ts []tier) {
	for _, t := range ts {
		if t.m != nil {
			t.m.release()
		}
	}
}

// openTiers opens a querier on each tier that may have samples in the range, and
// returns the start of the range, clamped by retention: the cutoff and the tiers
// are those of one moment.
func (s *Store) openTiers(mint, maxt int64) (int64, []tier, []storage.Querier, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return 0, nil, nil, ErrClosed
	}
	mint = max(mint, s.cutoff.Load())
	ts := s.tiersLocked(mint, maxt)
	qs := make([]storage.Querier, 0, len(ts))
	for _, t := range ts {
		q, err := tsdb.NewBlockQuerier(t.r, mint, maxt)
		if err != nil {
			for _, q := range qs {
				_ = q.Close()
			}
			releaseTiers(ts)
			return 0, nil, nil, err
		}
		qs = append(qs, q)
	}
	return mint, ts, qs, nil
}

// StartTime is the smallest timestamp of all tiers in milliseconds, or the
// largest int64 if they are empty.
func (s *Store) StartTime() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := int64(math.MaxInt64)
	for _, b := range s.blocks {
		t = min(t, b.MinTime())
	}
	for _, m := range s.frozen {
		t = min(t, m.mint)
	}
	if s.active != nil && !s.active.empty() {
		lo, _ := s.active.bounds()
		t = min(t, lo)
	}
	return t
}
