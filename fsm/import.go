// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/deucaliondb/deucalion/storage"
)

// ImportFiles knows where the files of imports are.
type ImportFiles interface {
	// Ensure returns the directory with the blocks of x, each in a directory named by
	// its ULID, all files present and right. It waits until they are, and logs that;
	// an error means that they will never be, or that ctx ended, and stops the state
	// machine. index is that of the entry.
	Ensure(ctx context.Context, index uint64, x Import) (dir string, err error)
}

// SetImportFiles must be called before the first Apply of an import.
func (f *FSM) SetImportFiles(files ImportFiles) { f.imports.files = files }

// importMemory is how many outcomes of imports are remembered.
const importMemory = 64

// imports is what this node knows of imports. The outcomes are no part of the
// replicated state.
type imports struct {
	files ImportFiles

	// mu protects the following.
	mu       sync.Mutex
	order    []string // oldest first
	outcomes map[string]storage.ImportStats
}

func (i *imports) note(id string, st storage.ImportStats) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.outcomes == nil {
		i.outcomes = map[string]storage.ImportStats{}
	}
	if len(i.order) == importMemory {
		delete(i.outcomes, i.order[0])
		i.order = i.order[1:]
	}
	i.order = append(i.order, id)
	i.outcomes[id] = st
}

// ImportOutcome tells what became of an import that this node has applied since
// its start; ok is false if it knows nothing of it.
func (f *FSM) ImportOutcome(id string) (st storage.ImportStats, ok bool) {
	f.imports.mu.Lock()
	defer f.imports.mu.Unlock()
	st, ok = f.imports.outcomes[id]
	return st, ok
}

// PrepareImport makes of the foreign block in the directory src, which may be
// changed, one that can be imported, in the directory dst. It reads all of it, and
// refuses what an append could not have written, or what is newer than maxTime
// (milliseconds): see storage.Store.PrepareImport.
func (f *FSM) PrepareImport(ctx context.Context, src, dst string, maxTime int64) (storage.Prepared, error) {
	return f.store.PrepareImport(ctx, src, dst,
		func(ls labels.Labels) error {
			if !storable(ls) {
				return errors.New("labels that cannot be stored")
			}
			return nil
		},
		func(x storage.Sample) error {
			switch {
			case !valid(x):
				return errors.New("invalid timestamp or histogram")
			case x.T > maxTime:
				return errors.New("timestamp in the future")
			}
			return nil
		})
}

// LookAhead makes the Import of x, whose blocks lie in dir, take less time; see
// storage.Store.LookAhead. Not for the applier's goroutine.
func (f *FSM) LookAhead(ctx context.Context, dir string, x Import) error {
	return f.store.LookAhead(ctx, dir, x.Blocks)
}

func (f *FSM) applyImport(index uint64, p []byte) error {
	x, err := decodeImport(p)
	if err != nil {
		return err
	}
	if !f.requests.add(x.ID) {
		return nil // a retry after a lost answer
	}
	if f.imports.files == nil {
		return errors.New("this node keeps no files of imports")
	}
	dir, err := f.imports.files.Ensure(f.ctx, index, x)
	if err != nil {
		return fmt.Errorf("files of import %s: %w", x.ID, err)
	}
	var st storage.ImportStats
	err = f.whenThereIsRoom(index, func() (err error) {
		st, err = f.store.Import(dir, x.Blocks)
		return err
	})
	if err == nil {
		err = f.extendSeries(dir, x.Blocks)
	}
	if err != nil {
		return err
	}
	f.imports.note(x.ID, st)
	f.m.imported.WithLabelValues("added").Add(float64(st.Added))
	f.m.imported.WithLabelValues("duplicate").Add(float64(st.Refused))
	f.log.Info("Imported blocks", "id", x.ID, "index", index, "blocks", len(x.Blocks), "samples", st.Added, "duplicates", st.Refused)
	return nil
}

// extendSeries makes the newest timestamps bounds of what is stored again: a
// sample above its series' is accepted without a look. Below the floor that matters
// only if a wider window lowers it, and a bound for all series will do. Above it,
// each series gets its own, or a live one could not be written any more.
func (f *FSM) extendSeries(dir string, blocks []storage.BlockFiles) error {
	for _, b := range blocks {
		f.maxT.Store(max(f.maxT.Load(), b.MaxTime-1))
	}
	f.updateFloor()
	t, dropped := f.table.Load(), f.dropHorizon
	for _, b := range blocks {
		if newest := b.MaxTime - 1; newest < f.floor {
			t.raise(newest)
			dropped = max(dropped, newest)
			continue
		}
		err := storage.NewestOf(dir, b, func(ls labels.Labels, lastT int64, newest chunkenc.Encoding) {
			s := t.byLabels(ls)
			switch {
			case s == nil && lastT < f.floor:
				dropped = max(dropped, lastT) // as if dropped since, see applyCutoff
				return
			case s == nil:
				s = t.add(ls, f.dropHorizon)
			}
			if lastT > s.lastT.Load() {
				s.lastT.Store(lastT)
				s.kind = kindOfChunk(newest)
			}
		})
		if err != nil {
			return err
		}
	}
	f.dropHorizon = dropped
	return nil
}

func kindOfChunk(e chunkenc.Encoding) valueKind {
	switch e {
	case chunkenc.EncHistogram:
		return histogramKind
	case chunkenc.EncFloatHistogram:
		return floatHistogramKind
	default:
		return floatKind
	}
}
