// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/deucaliondb/deucalion/storage"
)

// Options configure an FSM.
type Options struct {
	// Dir is the data directory. The FSM owns live/ (emptied by Open) and
	// snapshots/ (user snapshots) in it.
	Dir string
	// Storage tunes the tiers; its Dir, Logger and Registerer are set by Open.
	Storage    storage.Options
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: metrics are not exported
	// Level makes the state machine know no more than a binary of that level did;
	// 0 means Level. For tests of upgrades.
	Level uint32

	hash func(labels.Labels) uint64
}

// FSM is the state machine. See the package comment for who may call what.
type FSM struct {
	opts  Options
	log   *slog.Logger
	m     *metrics
	store *storage.Store

	applied applied

	// Logical state. The applier writes it; what others read is atomic.
	table       atomic.Pointer[table]
	settings    atomic.Pointer[Settings]
	maxT        atomic.Int64 // largest timestamp accepted, or storage.NoTime
	floor       int64        // horizon(maxT, cutoff, window), kept up to date
	dropHorizon int64        // no series that was dropped had a sample above it
	requests    requestLog   // ids of deletes and imports that were applied
	deletes     deleteLog    // the deletes themselves
	exemplars   *exemplars
	metadata    *metadataMap
	shipped     atomic.Pointer[map[string]uint64] // see Shipped
	decided     verdictLog

	// erased counts entries that have removed samples. A proposer that finds it
	// unchanged after waiting for an index knows that what it saw before is still
	// there at that index.
	erased atomic.Uint64

	entry appendEntry // decoding buffer, the applier's own
	hits  []*series   // series of the known samples of the entry, the applier's own

	imports imports
	tasks   *tasks
	digests *digests
	batches sync.Pool // of *Batch

	damageOnce sync.Once
	damaged    chan struct{}
	damage     error // why damaged is closed; constant then

	failOnce sync.Once
	failed   chan struct{}
	err      atomic.Pointer[error]
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
}

// Open empties <Dir>/live and opens a state machine with the state of the
// snapshot directory from, or with an empty one if from is "". The snapshot must
// be on the same file system as Dir, and is not changed.
func Open(o Options, from string) (*FSM, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := removeUnfinished(filepath.Join(o.Dir, "snapshots")); err != nil {
		o.Logger.Warn("Removing unfinished user snapshots", "err", err)
	}
	so := o.Storage
	f := &FSM{
		opts: o, log: o.Logger, failed: make(chan struct{}), damaged: make(chan struct{}),
		dropHorizon: storage.NoTime, floor: storage.NoTime,
	}
	so.Dir, so.Logger, so.Registerer = filepath.Join(o.Dir, "live"), o.Logger, o.Registerer
	so.OnDamage, so.OnWriteError = f.noteDamage, f.NoteWriteError
	var err error
	if f.store, err = storage.Open(so); err != nil {
		return nil, fmt.Errorf("open storage: %w", err)
	}
	f.batches.New = func() any { return &Batch{} }
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.table.Store(newTable(o.hash))
	f.settings.Store(&Settings{})
	f.maxT.Store(storage.NoTime)
	f.shipped.Store(&map[string]uint64{})
	f.exemplars = newExemplars(o.Registerer)
	f.metadata = newMetadataMap()
	f.tasks = newTasks(f)
	f.digests = &digests{f: f}
	f.m = newMetrics(o.Registerer, f)
	if from == "" {
		return f, nil
	}
	if err := f.Restore(from); err != nil {
		return nil, fmt.Errorf("restore %s: %w", from, joinClose(err, f))
	}
	return f, nil
}

// Close stops the FSM's goroutines and waits for them. No Apply may run.
func (f *FSM) Close() error {
	f.cancel()
	f.store.Interrupt() // a clean may have hours of rewriting before it
	f.tasks.wait()
	f.digests.wg.Wait()
	return f.store.Close()
}

// Applied returns the index and the term of the newest published entry.
func (f *FSM) Applied() (index, term uint64) { return f.applied.index.Load(), f.applied.term.Load() }

// Wait blocks until an index of at least index is published, ctx ends, or the
// FSM is closed.
func (f *FSM) Wait(ctx context.Context, index uint64) error {
	return f.applied.wait(ctx, index, f.ctx.Done())
}

// Publish makes the applied entries up to index visible to Applied and Wait.
// Applier only, after the Apply of a batch.
func (f *FSM) Publish(index, term uint64) { f.applied.set(index, term) }

// Failed is closed when a broken invariant (an unreadable entry, a storage
// error) or a disk that fails writes stopped the FSM. It then applies nothing more: this node would
// otherwise silently differ from the others. Err tells why.
func (f *FSM) Failed() <-chan struct{} { return f.failed }

// Err returns why the FSM stopped, or nil.
func (f *FSM) Err() error {
	if e := f.err.Load(); e != nil {
		return *e
	}
	return nil
}

func (f *FSM) noteDamage(err error) {
	f.damageOnce.Do(func() {
		f.damage = err
		close(f.damaged)
	})
}

// NoteWriteError stops the FSM if err is a write or a sync that the disk has failed
// (storage.MarkWrite), in a snapshot, say; Err then wraps storage.ErrWrite. Any
// goroutine may call it.
func (f *FSM) NoteWriteError(err error) {
	if err = storage.MarkWrite(err); errors.Is(err, storage.ErrWrite) {
		f.stop(err)
	}
}

// Erasures counts the entries since Open that have removed samples: deletes, above all.
func (f *FSM) Erasures() uint64 { return f.erased.Load() }

// Damaged is closed when a block on the disk turns out not to be what was written.
// Reads of it fail; all else goes on, unless it was met in Apply: then the FSM has
// failed, too. Damage tells what is wrong.
func (f *FSM) Damaged() <-chan struct{} { return f.damaged }

// Damage returns what is damaged, or nil.
func (f *FSM) Damage() error {
	select {
	case <-f.damaged:
		return f.damage
	default:
		return nil
	}
}

func (f *FSM) fail(index uint64, err error) Result {
	f.stop(fmt.Errorf("applying log entry %d: %w", index, storage.MarkWrite(err)))
	// Damage of this node's disk is no end: the others can repair it. A wrong checksum tells so itself, whatever else
	// may come from damage is looked for.
	if errors.Is(err, storage.ErrDamaged) {
		f.noteDamage(f.Err())
	}
	f.store.Scrub()
	return Result{Index: index, Err: f.Err().Error()}
}

func (f *FSM) stop(err error) {
	f.failOnce.Do(func() {
		f.err.Store(&err)
		f.log.Error("The state machine stopped; this node serves no more until it is restarted", "err", err)
		close(f.failed)
	})
}

// Settings returns the replicated settings.
func (f *FSM) Settings() Settings { return *f.settings.Load() }

// MaxTime is the largest timestamp accepted, in milliseconds, or storage.NoTime.
func (f *FSM) MaxTime() int64 { return f.maxT.Load() }

// Cutoff is the retention limit in milliseconds, or storage.NoTime.
func (f *FSM) Cutoff() int64 { return f.store.Cutoff() }

// BlocksSize is the number of bytes of this node's blocks.
func (f *FSM) BlocksSize() int64 { return f.store.BlocksSize() }

// BlockMetas describes this node's blocks.
func (f *FSM) BlockMetas() []tsdb.BlockMeta { return f.store.BlockMetas() }

// CutoffForSize returns the lowest cutoff that brings this node's blocks down to
// limit bytes; ok is false if they are within it.
func (f *FSM) CutoffForSize(limit int64) (cutoff int64, ok bool) { return f.store.CutoffForSize(limit) }

// SetLowDisk tells whether the disk is nearly full. While it is, no blocks are
// merged and user snapshots fail; cleans, which make room, go on.
func (f *FSM) SetLowDisk(low bool) { f.store.SetLowDisk(low) }

// Storage is the store below, for tests and tools that choose when it flushes
// and merges.
func (f *FSM) Storage() *storage.Store { return f.store }
