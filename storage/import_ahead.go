// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

const (
	// aheadKeep is how long is remembered what was found out before an import.
	aheadKeep = time.Hour
	// aheadIntervals bounds the memory that takes, with 16 bytes each.
	aheadIntervals = 1 << 22
)

// ahead is what is known of a block before its import: which of its samples lose
// against some of the tiers. Those tiers never change but by deletes.
type ahead struct {
	lost    map[storage.SeriesRef]tombstones.Intervals
	refused int64
	seen    map[string]struct{} // keys of the tiers
	deletes uint64              // Store.deletes at that time
	made    time.Time
}

// key names a tier within the process; Reset may bring the blocks back in another
// state.
func (t tier) key() string {
	if t.m != nil {
		return fmt.Sprint("mem-", t.m.gen)
	}
	return t.id.String()
}

// LookAhead does most of the work of an Import of the blocks below dir that is to
// come soon, on another goroutine than the applier's. It has no effect but that
// the Import takes less time.
func (s *Store) LookAhead(ctx context.Context, dir string, from []BlockFiles) error {
	for _, f := range from {
		err := withBlock(filepath.Join(dir, f.ULID.String()), func(b *tsdb.Block) error {
			a, err := s.look(ctx, b)
			if err == nil {
				s.remember(f.ULID, a)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("look ahead at block %s: %w", f.ULID, err)
		}
	}
	return nil
}

func (s *Store) look(ctx context.Context, b *tsdb.Block) (*ahead, error) {
	s.mu.RLock()
	a := &ahead{seen: map[string]struct{}{}, deletes: s.deletes, made: time.Now()}
	s.mu.RUnlock()
	q, err := s.querier(b.MinTime(), b.MaxTime()-1, false)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	q.keep(func(t tier) bool { return !t.live })
	for _, t := range q.tiers {
		a.seen[t.key()] = struct{}{}
	}
	a.lost, a.refused, err = q.shadow(ctx, b, nil)
	return a, err
}

// remember keeps a, unless it is out of date or too large.
func (s *Store) remember(id ulid.ULID, a *ahead) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	maps.DeleteFunc(s.ahead, func(_ ulid.ULID, a *ahead) bool { return time.Since(a.made) > aheadKeep })
	for _, x := range append(slices.Collect(maps.Values(s.ahead)), a) {
		for _, ivs := range x.lost {
			n += len(ivs)
		}
	}
	if a.deletes == s.deletes && n <= aheadIntervals {
		s.ahead[id] = a
	}
}

// recall returns what was found out about a block, if it still holds, and forgets
// it. What a delete has removed since then cannot win any more, so after one all
// must be looked at again.
func (s *Store) recall(id ulid.ULID) *ahead {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.ahead[id]
	delete(s.ahead, id)
	if a == nil || a.deletes != s.deletes {
		return &ahead{}
	}
	return a
}

// keep closes the tiers of q that are not wanted.
func (q *querier) keep(wanted func(tier) bool) {
	var ts []tier
	var ps []storage.Querier
	for i, t := range q.tiers {
		if wanted(t) {
			ts, ps = append(ts, t), append(ps, q.parts[i])
			continue
		}
		_ = q.parts[i].Close()
		releaseTiers(q.tiers[i : i+1])
	}
	q.tiers, q.parts = ts, ps
}
