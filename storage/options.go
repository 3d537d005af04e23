// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// partition is the time span of the blocks that a flush writes, in
	// milliseconds: Prometheus's default block duration. Heads cut their chunks
	// at the same boundaries, so no chunk has to be re-encoded to be flushed.
	partition = int64(2 * time.Hour / time.Millisecond)

	// openWindow lets a head take any timestamp: admission is decided before.
	openWindow = int64(1) << 50

	// maxFrozen bounds the memory held by memtables that wait for the flusher.
	// Beyond it Freeze blocks, and with it the applier.
	maxFrozen = 8
)

// Options configure a Store.
type Options struct {
	// Dir is the live directory. Open empties it.
	Dir string

	// FreezeSpan is how far the largest timestamp of the log may advance before
	// the active memtable is frozen. Longer: more memory, and more log to keep;
	// shorter: more small blocks to merge. Default 30 minutes, which is one full
	// chunk of 120 samples at a 15 s interval.
	FreezeSpan time.Duration

	// FreezeSamples freezes the active memtable after that many samples,
	// whatever their timestamps. It bounds memory when old data is backfilled.
	// Default 32 Mi.
	FreezeSamples int64

	// MaxBlockSpan bounds the time span of a merged block; a tenth of what the
	// cutoff keeps does so, too. Longer blocks are cheaper to query, but are dropped
	// later by retention. Default 31 days.
	MaxBlockSpan time.Duration

	// ScrubInterval is how often all blocks are compared with the checksums that
	// they were written with, at 32 MiB/s. Zero: only when a read has met damage.
	ScrubInterval time.Duration

	// OnDamage is called, on a goroutine of the store, when a block turns out not
	// to be what was written. The store goes on: reads of what is damaged fail.
	OnDamage func(error)

	// OnWriteError is called, on any goroutine, when the disk has failed a write or a
	// sync of a flush, a merge or a snapshot. The error is an ErrWrite. The flusher or
	// the merger does nothing more after it.
	OnWriteError func(error)

	// Manual switches the background flusher and merger off; the caller calls
	// FlushOne and MergeOne. For tests that need a schedule of their own.
	Manual bool

	Logger     *slog.Logger
	Registerer prometheus.Registerer

	// afterWrite may give a flush another result, in tests of failing disks.
	afterWrite func(error) error
}

func (o *Options) setDefaults() {
	if o.FreezeSpan == 0 {
		o.FreezeSpan = 30 * time.Minute
	}
	if o.FreezeSamples == 0 {
		o.FreezeSamples = 32 << 20
	}
	if o.MaxBlockSpan == 0 {
		o.MaxBlockSpan = 31 * 24 * time.Hour
	}
	if o.OnWriteError == nil {
		o.OnWriteError = func(error) {}
	}
	if o.OnDamage == nil {
		o.OnDamage = func(error) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// NoTime stands for "no timestamp yet" in cutoffs and largest timestamps.
const NoTime = int64(math.MinInt64)
