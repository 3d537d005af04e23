// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// SnapshotReader answers queries from what Snapshot.Persist has written, apart
// from the live tiers. Goroutine-safe.
type SnapshotReader struct {
	blocks []*tsdb.Block
	cutoff int64
	note   func(error) error
}

// Open opens the blocks that Persist has put into dir, read-only. Samples below
// the cutoff and deleted ones are hidden, as on the Store. A damaged block is the
// Store's too, for the files are the same, and is noted like one that a query
// finds.
func (p *Snapshot) Open(dir string, blocks []BlockFiles) (*SnapshotReader, error) {
	r := &SnapshotReader{cutoff: p.cutoff, note: p.s.noteReadError}
	for _, f := range blocks {
		b, err := tsdb.OpenBlock(nil, filepath.Join(dir, f.ULID.String()), nil, nil)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open block %s: %w", f.ULID, err), r.Close())
		}
		r.blocks = append(r.blocks, b)
	}
	return r, nil
}

// ExactQuerier is Store.ExactQuerier over the snapshot.
func (r *SnapshotReader) ExactQuerier(mint, maxt int64) (storage.Querier, error) {
	q := &querier{mint: max(mint, r.cutoff), maxt: maxt, exact: true, note: r.note}
	for _, b := range r.blocks {
		if b.MinTime() > q.maxt || q.mint >= b.MaxTime() {
			continue
		}
		p, err := tsdb.NewBlockQuerier(b, q.mint, q.maxt)
		if err != nil {
			return nil, errors.Join(err, q.Close())
		}
		q.parts = append(q.parts, p)
		q.tiers = append(q.tiers, tier{r: b, mint: b.MinTime(), maxt: b.MaxTime() - 1, stones: b.Meta().Stats.NumTombstones > 0})
	}
	return q, nil
}

// Close waits for the queriers that are open.
func (r *SnapshotReader) Close() error {
	var errs []error
	for _, b := range r.blocks {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}
