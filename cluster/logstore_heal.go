// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/types"
)

// healingLog is raft-wal with a cure for its sealed tail.
//
// The append that fills a segment seals it; the next segment is made afterwards, in the background. A crash in
// between (or a full disk) leaves a log whose every append fails with "segment is sealed", after restarts too.
// Truncating the last entry makes raft-wal start a new segment; that entry may be committed, so it is kept in the
// stable store until it is back in the log.
// Cost: three syncs, once per such crash. Test: TestHealSealedTail. May go when raft-wal rotates on open.
type healingLog struct {
	wal     *wal.WAL
	stable  raft.StableStore
	codec   wal.BinaryCodec
	logger  *slog.Logger
	metrics *metrics

	// mu keeps readers from seeing the moment in which the last entry is missing: a replicating leader would take
	// that for a compacted log and send a whole snapshot.
	mu sync.RWMutex
}

// newHealingLog finishes a cure that a crash interrupted.
func newHealingLog(w *wal.WAL, stable raft.StableStore, logger *slog.Logger, m *metrics) (*healingLog, error) {
	h := &healingLog{wal: w, stable: stable, logger: logger, metrics: m}
	b, err := stableGet(stable, keyHealEntry)
	if err != nil || len(b) == 0 {
		return h, err
	}
	var l raft.Log
	if err := h.codec.Decode(b, &l); err != nil {
		return nil, fmt.Errorf("%w: entry kept while the log was healed: %w", ErrDamaged, err)
	}
	last, err := w.LastIndex()
	if err != nil {
		return nil, err
	}
	switch {
	case last >= l.Index: // died before the truncation, or after the second append
	case last == 0 || last+1 == l.Index:
		if err := w.StoreLog(&l); err != nil {
			return nil, fmt.Errorf("put back entry %d: %w", l.Index, err)
		}
		logger.Warn("Finished the repair of the Raft log that a crash interrupted", "index", l.Index)
	default:
		return nil, fmt.Errorf("%w: log ends at %d, the entry kept while it was healed is %d", ErrDamaged, last, l.Index)
	}
	return h, stable.Set(keyHealEntry, nil)
}

// StoreLog implements raft.LogStore.
func (h *healingLog) StoreLog(l *raft.Log) error { return h.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (h *healingLog) StoreLogs(ls []*raft.Log) error {
	err := h.wal.StoreLogs(ls)
	if !errors.Is(err, types.ErrSealed) {
		return err
	}
	if healErr := h.heal(); healErr != nil {
		return fmt.Errorf("%w; repair: %w", err, healErr)
	}
	return h.wal.StoreLogs(ls)
}

func (h *healingLog) heal() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	last, err := h.wal.LastIndex()
	if err != nil {
		return err
	}
	var l raft.Log
	if err := h.wal.GetLog(last, &l); err != nil {
		return err
	}
	var buf bytes.Buffer
	if err := h.codec.Encode(&l, &buf); err != nil {
		return err
	}
	if err := h.stable.Set(keyHealEntry, buf.Bytes()); err != nil {
		return err
	}
	if err := h.wal.DeleteRange(last, last); err != nil {
		return err
	}
	if err := h.wal.StoreLog(&l); err != nil {
		return err
	}
	h.logger.Warn("Repaired the Raft log, whose last segment had been sealed by a crash", "index", last)
	h.metrics.logHeals.Inc()
	return h.stable.Set(keyHealEntry, nil)
}

// GetLog implements raft.LogStore.
func (h *healingLog) GetLog(i uint64, l *raft.Log) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.wal.GetLog(i, l)
}

// FirstIndex implements raft.LogStore.
func (h *healingLog) FirstIndex() (uint64, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.wal.FirstIndex()
}

// LastIndex implements raft.LogStore.
func (h *healingLog) LastIndex() (uint64, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.wal.LastIndex()
}

// DeleteRange implements raft.LogStore.
func (h *healingLog) DeleteRange(lo, hi uint64) error { return h.wal.DeleteRange(lo, hi) }

// IsMonotonic implements raft.MonotonicLogStore.
func (h *healingLog) IsMonotonic() bool { return h.wal.IsMonotonic() }
