// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"time"

	"github.com/deucaliondb/deucalion/internal/fault"
)

// MaybeFreeze freezes the active memtable if it is full; maxT is the largest
// timestamp of the log. After an error it may be called again. Applier only,
// after each commit.
func (s *Store) MaybeFreeze(maxT int64) error {
	if s.activeSince == NoTime {
		s.activeSince = maxT
	}
	full := maxT-s.activeSince >= s.opts.FreezeSpan.Milliseconds() && s.active.samples > 0
	if !full && s.active.samples < s.opts.FreezeSamples {
		return nil
	}
	s.mu.RLock()
	waiting := len(s.frozen)
	s.mu.RUnlock()
	// Span alone is no reason to run ahead of the flusher: small memtables cost
	// more than one that is somewhat larger.
	if waiting >= maxFrozen/2 && s.active.samples < s.opts.FreezeSamples {
		return nil
	}
	if err := s.Freeze(); err != nil {
		return err
	}
	s.activeSince = maxT
	return nil
}

// Freeze makes the active memtable immutable and starts an empty one. It takes
// milliseconds, unless too many memtables wait for the flusher: then it waits
// for one to go. An empty memtable stays active. Nothing has changed if there is
// an error. Applier only.
func (s *Store) Freeze() error {
	m := s.active
	if m.empty() {
		return nil
	}
	start := time.Now()
	next, err := s.takeSpare(m.head.NumSeries())
	if err != nil {
		return err
	}
	m.mint, m.maxt = m.bounds()
	m.pos = s.pos

	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.awaitFlusherLocked(); err != nil {
		next.release()
		return err
	}
	s.frozen = append(s.frozen, m)
	s.active = next
	fault.Point(fault.FreezeSwapped)
	s.activeSince = NoTime // the next MaybeFreeze knows
	s.m.freezes.Inc()
	s.m.freezeSeconds.Observe(time.Since(start).Seconds())
	s.kick(s.kickFlush)
	return nil
}

func (s *Store) awaitFlusherLocked() error {
	if s.opts.Manual || len(s.frozen) < maxFrozen {
		return nil
	}
	s.opts.Logger.Warn("Writes wait: memtables are filled faster than they are flushed", "waiting", len(s.frozen))
	start := time.Now()
	for len(s.frozen) >= maxFrozen && !s.closed {
		s.drained.Wait()
	}
	s.m.stallSeconds.Add(time.Since(start).Seconds())
	if s.closed {
		return ErrClosed
	}
	return nil
}

// takeSpare returns an empty memtable, which was made before if possible.
func (s *Store) takeSpare(series uint64) (*memtable, error) {
	s.mu.Lock()
	m := s.spare
	s.spare = nil
	s.mu.Unlock()
	if m != nil {
		return m, nil
	}
	return s.newMemtable(series)
}

// makeSpare makes the memtable of the next freeze, unless there is one.
func (s *Store) makeSpare(series uint64) error {
	s.mu.RLock()
	have := s.spare != nil || s.closed
	s.mu.RUnlock()
	if have {
		return nil
	}
	m, err := s.newMemtable(series)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.spare == nil && !s.closed {
		s.spare, m = m, nil
	}
	s.mu.Unlock()
	if m != nil {
		m.release()
	}
	return nil
}
