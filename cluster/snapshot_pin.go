// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/deucaliondb/deucalion/fsm"
)

// attach tells the store whose it is, and who fetches what is offered. Called before Raft starts.
func (s *SnapshotStore) attach(node string, take receiveFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node, s.take = node, take
}

// onError tells the store who is to hear why a snapshot could not be finished. Called before Raft starts.
func (s *SnapshotStore) onError(note func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note = note
}

func (s *SnapshotStore) noteError(err error) {
	s.mu.Lock()
	note := s.note
	s.mu.Unlock()
	if note != nil {
		note(err)
	}
}

func (s *SnapshotStore) nodeID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node
}

func (s *SnapshotStore) receiver() receiveFunc {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.take
}

// pin keeps the files of a snapshot until unpin is called, which may be called again.
func (s *SnapshotStore) pin(id string) (dir string, unpin func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.findLocked(id) == nil {
		return "", nil, fmt.Errorf("snapshot %s: %w", id, os.ErrNotExist)
	}
	return s.dataDir(id), s.pinLocked(id), nil
}

func (s *SnapshotStore) pinLocked(id string) (unpin func() error) {
	s.pins[id]++
	return sync.OnceValue(func() error { return s.unpin(id) })
}

// unpin ends one pin; the last one removes what was to be reaped meanwhile.
func (s *SnapshotStore) unpin(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pins[id]--
	if s.pins[id] > 0 {
		return nil
	}
	delete(s.pins, id)
	if _, ok := s.dead[id]; !ok {
		return nil
	}
	delete(s.dead, id)
	return s.removeLocked(id)
}

// newestID is "" when there is no snapshot.
func (s *SnapshotStore) newestID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.metas) == 0 {
		return ""
	}
	return s.metas[0].Raft.ID
}

// offer makes what a follower is told about m, a pinned snapshot.
func (s *SnapshotStore) offer(m *snapshotMeta) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(s.dataDir(m.Raft.ID), fsm.ManifestName))
	if err != nil {
		return nil, err
	}
	return encodeOffer(s.nodeID(), m, b)
}
