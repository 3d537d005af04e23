// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/deucaliondb/deucalion/internal/fault"
	"github.com/deucaliondb/deucalion/internal/plant"
)

// Restore replaces all state by that of the snapshot in dir and publishes its
// index. The directory is hard-linked from, not changed. On an error the state
// is what it was. Applier only.
func (f *FSM) Restore(dir string) error {
	m, err := verify(dir, false, nil)
	if err != nil {
		return err
	}
	t := newTable(f.opts.hash)
	st, err := readState(filepath.Join(dir, stateName), t)
	if err != nil {
		return err
	}
	h := st.header
	if h.Index != m.Index || h.Term != m.Term {
		return fmt.Errorf("%w: manifest and state are of index %d and %d", ErrSnapshot, m.Index, h.Index)
	}
	if err := f.checkLevel(h.Settings); err != nil {
		f.stop(err)
		return err
	}
	if err := f.store.Reset(filepath.Join(dir, blocksName), m.Blocks, h.Cutoff, h.MaxT); err != nil {
		return err
	}
	fault.Point(fault.RestoreHalf)
	f.erased.Add(1)
	if !plant.RestoreKeepsTables || f.table.Load().n.Load() == 0 {
		f.table.Store(t)
	}
	f.settings.Store(&h.Settings)
	f.maxT.Store(h.MaxT)
	f.dropHorizon = h.DropHorizon
	f.requests = requestLog{}
	for _, id := range h.Requests {
		f.requests.add(id)
	}
	f.deletes.reset(h.Index, h.DeletesSince, h.Deletes)
	f.shipped.Store(&h.Shipped)
	f.exemplars.reset(h.Settings.MaxExemplars, st.exemplars)
	f.metadata.reset(st.metadata)
	f.updateFloor()
	cleans := h.PendingCleans
	if m.Clean {
		cleans = append(cleans, fmt.Sprint("catch-up-", h.Index))
	}
	for _, id := range cleans {
		f.tasks.forget(id) // what this node did of it, it did to blocks that are gone
		f.tasks.clean(id)
	}
	f.Publish(h.Index, h.Term)
	f.log.Info("Restored a snapshot", "dir", dir, "index", h.Index, "term", h.Term, "series", t.n.Load(), "blocks", len(m.Blocks))
	return nil
}

func joinClose(err error, f *FSM) error { return errors.Join(err, f.Close()) }
