// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/internal/fault"
)

const (
	retainSnapshots = 2
	retainDamaged   = 2
)

// SnapshotStore is a raft.SnapshotStore of directories:
//
//	<term>-<index>-<msec>/meta.json   Raft's meta data, the list of files, a checksum
//	<term>-<index>-<msec>/data/       what fsm.Snapshot.Persist made: hard links, mostly
//	<...>.tmp                         not finished or half removed; deleted when the store is opened
//	<...>.damaged                     set aside when the store was opened
//
// Two are retained. A snapshot that is being read stays until its last reader is closed. Goroutine-safe.
type SnapshotStore struct {
	dir     string
	logger  *slog.Logger
	damaged uint64 // highest index of a snapshot that this opening set aside

	mu    sync.Mutex          // protects the following, and the names in dir
	metas []*snapshotMeta     // good and finished ones, newest first
	pins  map[string]int      // open readers
	dead  map[string]struct{} // reaped while pinned
}

// OpenSnapshots opens <dir>/snapshots-raft, dir being the data directory, and makes it if need be. Snapshots that are
// damaged (meta.json, sizes, fsm.VerifySnapshot) are renamed to *.damaged with an error in the log, and the one
// before is used; Start refuses the directory if the log does not reach back to it.
func OpenSnapshots(dir string, logger *slog.Logger) (*SnapshotStore, error) {
	return openSnapshots(dir, logger, func(d string) error { return fsm.VerifySnapshot(d, false) })
}

func openSnapshots(dir string, logger *slog.Logger, verify func(dir string) error) (*SnapshotStore, error) {
	s := &SnapshotStore{
		dir: filepath.Join(dir, "snapshots-raft"), logger: logger,
		pins: make(map[string]int), dead: make(map[string]struct{}),
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	es, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var aside []string
	for _, e := range es {
		name := e.Name()
		switch {
		case strings.HasSuffix(name, tmpSuffix):
			err = os.RemoveAll(filepath.Join(s.dir, name))
		case strings.HasSuffix(name, damagedSuffix):
			aside = append(aside, name)
		case e.IsDir():
			err = s.load(name, verify)
		}
		if err != nil {
			return nil, err
		}
	}
	s.sortLocked()
	if err := s.dropDamaged(aside); err != nil {
		return nil, err
	}
	return s, syncDir(s.dir)
}

// load takes the snapshot name in, or sets it aside.
func (s *SnapshotStore) load(name string, verify func(string) error) error {
	dir := filepath.Join(s.dir, name)
	m, err := readSnapshotMeta(dir)
	if err == nil && m.Raft.ID != name {
		err = fmt.Errorf("%s names snapshot %q", metaName, m.Raft.ID)
	}
	if err == nil {
		err = m.verifyFiles(dir)
	}
	if err == nil {
		err = verify(filepath.Join(dir, dataName))
	}
	if err == nil {
		s.metas = append(s.metas, m)
		return nil
	}
	if errors.Is(err, fsm.ErrNewer) {
		return fmt.Errorf("%s: %w", dir, err) // nothing is wrong with it
	}
	var term, index, msec uint64
	if _, scanErr := fmt.Sscanf(name, "%d-%d-%d", &term, &index, &msec); scanErr == nil {
		s.damaged = max(s.damaged, index)
	}
	s.logger.Error("Set aside a damaged Raft snapshot, the one before it is used", "snapshot", dir+damagedSuffix, "err", err)
	return os.Rename(dir, dir+damagedSuffix)
}

// dropDamaged keeps those set aside from filling the disk: they hold on to blocks that are long gone.
func (s *SnapshotStore) dropDamaged(names []string) error {
	slices.Sort(names)
	for len(names) > retainDamaged {
		s.logger.Warn("Removing an old damaged Raft snapshot", "snapshot", names[0])
		if err := os.RemoveAll(filepath.Join(s.dir, names[0])); err != nil {
			return err
		}
		names = names[1:]
	}
	return nil
}

// sortLocked puts the newest first.
func (s *SnapshotStore) sortLocked() {
	slices.SortFunc(s.metas, func(a, b *snapshotMeta) int {
		return cmp.Or(cmp.Compare(b.Raft.Index, a.Raft.Index), cmp.Compare(b.Raft.Term, a.Raft.Term), cmp.Compare(b.Raft.ID, a.Raft.ID))
	})
}

// Latest returns the data directory of the newest good snapshot, for fsm.Open. ok is false when there is none. The
// directory stays at least until the next snapshot but one has been made.
func (s *SnapshotStore) Latest() (dir string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.metas) == 0 {
		return "", false
	}
	return s.dataDir(s.metas[0].Raft.ID), true
}

func (s *SnapshotStore) dataDir(id string) string { return filepath.Join(s.dir, id, dataName) }

// newest returns index and term of the newest snapshot, 0 when there is none.
func (s *SnapshotStore) newest() (index, term uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.metas) == 0 {
		return 0, 0
	}
	return s.metas[0].Raft.Index, s.metas[0].Raft.Term
}

// newestTime is when the newest snapshot was begun, by its name.
func (s *SnapshotStore) newestTime() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	var term, index uint64
	var msec int64
	if len(s.metas) == 0 {
		return time.Time{}
	}
	if _, err := fmt.Sscanf(s.metas[0].Raft.ID, "%d-%d-%d", &term, &index, &msec); err != nil {
		return time.Time{}
	}
	return time.UnixMilli(msec)
}

// oldest returns the index of the oldest retained snapshot, 0 while fewer than two are there.
func (s *SnapshotStore) oldest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.metas) < retainSnapshots {
		return 0
	}
	return s.metas[retainSnapshots-1].Raft.Index
}

// List implements raft.SnapshotStore.
func (s *SnapshotStore) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*raft.SnapshotMeta, 0, len(s.metas))
	for _, m := range s.metas {
		c := m.Raft
		out = append(out, &c)
	}
	return out, nil
}

// Open implements raft.SnapshotStore. The caller closes the reader, which pins the snapshot.
func (s *SnapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.metas {
		if m.Raft.ID == id {
			s.pins[id]++
			c := m.Raft
			return &c, &snapshotReader{store: s, meta: m, dir: s.dataDir(id)}, nil
		}
	}
	return nil, nil, fmt.Errorf("snapshot %s: %w", id, os.ErrNotExist)
}

// unpin ends one reader.
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

// publish takes in what a sink has finished and reaps what is too much. The snapshot is durable when it returns.
func (s *SnapshotStore) publish(m *snapshotMeta, tmp string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault.Point(fault.SnapshotBeforeName)
	if err := os.Rename(tmp, filepath.Join(s.dir, m.Raft.ID)); err != nil {
		return err
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	fault.Point(fault.SnapshotAfterName)
	s.metas = append(s.metas, m)
	s.sortLocked()
	var errs []error
	for len(s.metas) > retainSnapshots {
		id := s.metas[len(s.metas)-1].Raft.ID
		s.metas = s.metas[:len(s.metas)-1]
		if s.pins[id] > 0 {
			s.dead[id] = struct{}{}
			continue
		}
		errs = append(errs, s.removeLocked(id))
	}
	if err := errors.Join(errs...); err != nil { // the new one is good all the same
		s.logger.Error("Cannot remove an old Raft snapshot", "err", err)
	}
	return nil
}

// removeLocked renames first, so that a crash in the middle leaves a .tmp and never half a snapshot.
func (s *SnapshotStore) removeLocked(id string) error {
	dir := filepath.Join(s.dir, id)
	if err := os.Rename(dir, dir+tmpSuffix); err != nil {
		return err
	}
	return os.RemoveAll(dir + tmpSuffix)
}
