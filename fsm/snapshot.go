// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/metadata"

	"github.com/deucaliondb/deucalion/internal/fault"
	"github.com/deucaliondb/deucalion/storage"
)

const (
	// snapshotVersion is the version of the snapshot directory's format: the
	// manifest, the state file, and blocks/.
	//
	//	1  manifest, state, blocks
	//	2  blocks with their times and positions; the deletes in the header
	snapshotVersion = 2

	// ManifestName is the file that describes a snapshot directory.
	ManifestName = "manifest.json"

	stateName  = "state"
	blocksName = "blocks"
)

// header is the logical state without its tables.
type header struct {
	Index         uint64   `json:"index"`
	Term          uint64   `json:"term"`
	MaxT          int64    `json:"max_time"`
	Cutoff        int64    `json:"cutoff"`
	DropHorizon   int64    `json:"drop_horizon"`
	NextID        uint64   `json:"next_series_id"`
	Settings      Settings `json:"settings"`
	Requests      []string `json:"requests,omitempty"`
	PendingCleans []string `json:"pending_cleans,omitempty"`
	// DeletesSince is nil in version 1. See deleteLog.
	DeletesSince *uint64        `json:"deletes_since,omitempty"`
	Deletes      []loggedDelete `json:"deletes,omitempty"`
	// Shipped is empty before level 3.
	Shipped map[string]uint64 `json:"shipped,omitempty"`
}

// Snapshot is the state at one log index. It holds memory and disk space until
// Release.
type Snapshot struct {
	f         *FSM
	samples   *storage.Snapshot
	header    header
	series    []seriesState
	exemplars []exemplarState
	metadata  map[string][]metadata.Metadata
}

// Snapshot takes hold of the state as of the newest published entry. It takes
// milliseconds: blocks and memtables are referenced, tables are copied in memory.
// Applier only.
func (f *FSM) Snapshot() (*Snapshot, error) {
	if err := f.Err(); err != nil {
		return nil, err
	}
	start := time.Now()
	ex, err := f.exemplars.copy()
	if err != nil {
		return nil, fmt.Errorf("copy exemplars: %w", err)
	}
	cleans := f.tasks.pendingCleans() // before the samples: one that ends meanwhile may have come too late for them
	samples, err := f.store.Snapshot()
	if err != nil {
		f.m.snapshotFailures.Inc()
		return nil, fmt.Errorf("snapshot of the samples: %w", err)
	}
	t := f.table.Load()
	index, term := f.Applied()
	since := f.deletes.since
	s := &Snapshot{
		f: f, samples: samples, series: t.copy(), exemplars: ex, metadata: f.metadata.copy(),
		header: header{
			Index: index, Term: term, MaxT: f.maxT.Load(), Cutoff: f.store.Cutoff(), DropHorizon: f.dropHorizon,
			NextID: t.nextID, Settings: f.Settings(), Requests: append([]string(nil), f.requests.order...),
			PendingCleans: cleans, DeletesSince: &since, Deletes: slices.Clone(f.deletes.list), Shipped: f.Shipped(),
		},
	}
	f.m.snapshotHold.Observe(time.Since(start).Seconds())
	return s, nil
}

// Index is the log index of the state.
func (s *Snapshot) Index() uint64 { return s.header.Index }

// Release frees what the snapshot holds. What Persist wrote stays.
func (s *Snapshot) Release() { s.samples.Release() }

// Persist writes the snapshot into dir, an existing empty directory on the file
// system of the FSM's. Blocks are hard-linked. When it returns all is on disk.
// It may run beside the applier, which it never holds up.
func (s *Snapshot) Persist(ctx context.Context, dir string) (err error) {
	start := time.Now()
	defer func() {
		if err != nil {
			s.f.m.snapshotFailures.Inc()
			s.f.NoteWriteError(err)
		}
	}()
	blocks := filepath.Join(dir, blocksName)
	if err := os.Mkdir(blocks, 0o777); err != nil {
		return err
	}
	m := Manifest{Version: snapshotVersion, Index: s.header.Index, Term: s.header.Term}
	if m.Blocks, err = s.samples.Persist(ctx, blocks); err != nil {
		return fmt.Errorf("write blocks: %w", err)
	}
	if m.State, err = writeState(filepath.Join(dir, stateName), s); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	fault.Point(fault.SnapshotLinked)
	if err := writeManifest(dir, m); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	s.f.m.snapshotPersist.Observe(time.Since(start).Seconds())
	return storage.SyncDir(dir)
}

func writeSynced(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
