// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/deucaliondb/deucalion/internal/fault"
	"github.com/deucaliondb/deucalion/internal/plant"
)

// VerifySnapshot checks that the snapshot in dir can be used: its manifest, the
// state file and small block files by their checksums, large ones by their
// sizes. The error names the file.
func VerifySnapshot(dir string) error {
	_, err := readManifest(dir)
	return err
}

func readManifest(dir string) (manifest, error) {
	name := filepath.Join(dir, manifestName)
	b, err := os.ReadFile(name)
	if err != nil {
		return manifest{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	body, sum, ok := bytes.Cut(b, []byte("\n"))
	if !ok || string(sum) != fmt.Sprintf("%08x\n", crc32.Checksum(body, castagnoli)) && !plant.IgnoreChecksum {
		return manifest{}, fmt.Errorf("%w: %s does not match its checksum", ErrSnapshot, name)
	}
	var m manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return manifest{}, fmt.Errorf("%w: %s: %w", ErrSnapshot, name, err)
	}
	if m.Version != snapshotVersion {
		return manifest{}, fmt.Errorf("%w: %s has format version %d, this node knows %d", ErrSnapshot, name, m.Version, snapshotVersion)
	}
	state, err := os.ReadFile(filepath.Join(dir, stateName))
	if err != nil {
		return manifest{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	if sum := crc32.Checksum(state, castagnoli); int64(len(state)) != m.State.Size || sum != m.State.CRC32C && !plant.IgnoreChecksum {
		return manifest{}, fmt.Errorf("%w: %s does not match its checksum", ErrSnapshot, filepath.Join(dir, stateName))
	}
	for _, f := range m.Blocks {
		if err := f.Check(filepath.Join(dir, blocksName)); err != nil {
			return manifest{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
		}
	}
	return m, nil
}

// Restore replaces all state by that of the snapshot in dir and publishes its
// index. The directory is hard-linked from, not changed. On an error the state
// is what it was. Applier only.
func (f *FSM) Restore(dir string) error {
	m, err := readManifest(dir)
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
	f.exemplars.reset(h.Settings.MaxExemplars)
	for _, x := range st.exemplars {
		f.exemplars.add(x.series, x.Exemplar)
	}
	f.metadata.reset()
	f.metadata.merge(st.metadata)
	f.updateFloor()
	for _, id := range h.PendingCleans {
		f.tasks.forget(id) // what this node did of it, it did to blocks that are gone
		f.tasks.clean(id)
	}
	f.Publish(h.Index, h.Term)
	f.log.Info("Restored a snapshot", "dir", dir, "index", h.Index, "term", h.Term, "series", t.n.Load(), "blocks", len(m.Blocks))
	return nil
}

func joinClose(err error, f *FSM) error { return errors.Join(err, f.Close()) }
