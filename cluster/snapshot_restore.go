// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/deucaliondb/deucalion/fsm"
)

// Restore gives f, which is empty, the state of the newest snapshot that it can take. One that it cannot take though its
// checksums are right is set aside like a damaged one, and the one before is tried; without any, f stays empty. Before
// Start. The error is one that says nothing about the snapshot: it is of a newer version, or the system refused something.
func (s *SnapshotStore) Restore(f *fsm.FSM) error {
	for {
		dir, ok := s.Latest()
		if !ok {
			return nil
		}
		err := f.Restore(dir)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, fsm.ErrNewer), isIO(err):
			return fmt.Errorf("restore %s: %w", dir, err)
		default:
			if err := s.setAside(err); err != nil {
				return err
			}
		}
	}
}

// setAside renames the newest snapshot to *.damaged.
func (s *SnapshotStore) setAside(why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.metas[0]
	dir := filepath.Join(s.dir, m.Raft.ID)
	s.logger.Error("Set aside a Raft snapshot that cannot be restored, the one before it is used", "snapshot", dir+damagedSuffix, "err", why)
	if err := os.Rename(dir, dir+damagedSuffix); err != nil {
		return err
	}
	s.metas = s.metas[1:]
	s.damaged = max(s.damaged, m.Raft.Index)
	return syncDir(s.dir)
}
