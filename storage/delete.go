// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/deucaliondb/deucalion/internal/fault"
)

// deletion is a delete as it is remembered for blocks that are being written.
type deletion struct {
	mint, maxt int64
	selectors  [][]*labels.Matcher
}

// overlaps tells whether the closed range [mint, maxt] holds anything to delete.
func (d deletion) overlaps(mint, maxt int64) bool { return d.mint <= maxt && mint <= d.maxt }

// job is a block in the making: what it is made of was taken under Store.mu,
// and the deletes that came since are applied before it is installed.
type job struct {
	dels []deletion
	dead bool // the store was reset or closed: discard the result
}

func (s *Store) startJobLocked() *job {
	j := &job{}
	s.jobs[j] = struct{}{}
	return j
}

func (s *Store) endJob(j *job) {
	s.mu.Lock()
	delete(s.jobs, j)
	s.mu.Unlock()
}

// Delete removes the samples in the closed range [mint, maxt] of every series
// that one of the selectors matches. Samples that are appended later are not
// affected, also inside the range: for that the active memtable is frozen first
// if it has anything to delete. A damaged block is an ErrDamaged. Applier only.
func (s *Store) Delete(mint, maxt int64, selectors ...[]*labels.Matcher) error {
	d := deletion{mint, maxt, selectors}
	if hit, err := s.activeMatches(d); err != nil {
		return err
	} else if hit {
		if err := s.Freeze(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deletes++
	for _, m := range s.frozen {
		if err := m.deleteLocked(d); err != nil {
			return err
		}
	}
	fault.Point(fault.DeleteHalf)
	for _, b := range s.blocks {
		if d.overlaps(b.MinTime(), b.MaxTime()-1) {
			if err := s.saveForSnapshotsLocked(b); err != nil {
				return err
			}
			if err := b.apply(d); err != nil {
				return err
			}
		}
	}
	for j := range s.jobs {
		j.dels = append(j.dels, d)
	}
	s.m.deletes.Inc()
	s.kick(s.kickMerge)
	return nil
}

func (s *Store) activeMatches(d deletion) (bool, error) {
	mint, maxt := s.active.bounds()
	if s.active.empty() || !d.overlaps(mint, maxt) {
		return false, nil
	}
	refs, err := s.active.match(d, mint, maxt)
	return len(refs) > 0, err
}

// match returns the refs of the series that the selectors of d match.
func (m *memtable) match(d deletion, mint, maxt int64) ([]storage.SeriesRef, error) {
	ir := tsdb.NewHeadAndOOOIndexReader(m.head, mint, mint, maxt, 0)
	defer ir.Close()
	var refs []storage.SeriesRef
	for _, ms := range d.selectors {
		p, err := tsdb.PostingsForMatchers(context.Background(), ir, ms...)
		if err != nil {
			return nil, fmt.Errorf("select series to delete: %w", err)
		}
		for p.Next() {
			refs = append(refs, p.At())
		}
		if err := p.Err(); err != nil {
			return nil, fmt.Errorf("select series to delete: %w", err)
		}
	}
	return refs, nil
}

// deleteLocked adds tombstones to a frozen memtable. Readers keep the ones they
// have: a running query does not see the delete.
func (m *memtable) deleteLocked(d deletion) error {
	if !d.overlaps(m.mint, m.maxt) {
		return nil
	}
	refs, err := m.match(d, m.mint, m.maxt)
	if err != nil {
		return err
	}
	if len(refs) == 0 {
		return nil
	}
	stones := tombstones.NewMemTombstones()
	if err := m.stones.Iter(func(r storage.SeriesRef, ivs tombstones.Intervals) error {
		stones.AddInterval(r, ivs...)
		return nil
	}); err != nil {
		return err
	}
	// Clamped: Intervals.Add panics on a second interval that ends at MaxInt64.
	iv := tombstones.Interval{Mint: max(d.mint, m.mint), Maxt: min(d.maxt, m.maxt)}
	for _, r := range refs {
		stones.AddInterval(r, iv)
	}
	m.stones, m.dels = stones, append(m.dels, d)
	return nil
}

// apply deletes from one block. It fsyncs the block's tombstones.
func (d deletion) apply(b *tsdb.Block) error {
	for _, ms := range d.selectors {
		if err := b.Delete(context.Background(), d.mint, d.maxt, ms...); err != nil {
			return fmt.Errorf("delete from block %s: %w", b.Dir(), markDamage(err))
		}
	}
	return nil
}
