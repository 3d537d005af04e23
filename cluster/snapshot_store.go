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
//	<term>-<index>-<msec>/meta.json   Raft's meta data, a checksum
//	<term>-<index>-<msec>/data/       what fsm.Snapshot.Persist made: hard links, mostly
//	<...>.tmp                         not finished or half removed; deleted when the store is opened
//	<...>.damaged                     set aside when the store was opened
//	incoming/                         what is being fetched from another node, see catchup.go
//
// Two are retained. A snapshot that is being read stays until its last reader is closed. Goroutine-safe.
type SnapshotStore struct {
	dir     string
	logger  *slog.Logger
	damaged uint64 // highest index of a snapshot that this opening set aside

	mu    sync.Mutex          // protects the following, and the names in dir
	node  string              // this node's id, for offers
	take  receiveFunc         // what becomes of offers
	note  func(error)         // hears why a snapshot could not be finished; nil: nobody
	metas []*snapshotMeta     // good and finished ones, newest first
	pins  map[string]int      // open readers and others that need the files
	dead  map[string]struct{} // reaped while pinned
}

// receiveFunc moves the files of an offered snapshot into dst, an empty directory; or it returns errCatchingUp, or
// errInstalled.
type receiveFunc func(o *offer, dst string) error

// verifyAllName is a file in the data directory. While it is there the next OpenSnapshots reads every byte.
const verifyAllName = "verify-all"

// OpenSnapshots opens <dir>/snapshots-raft, dir being the data directory, and makes it if need be. Snapshots that are
// damaged (meta.json, fsm.VerifySnapshot) are renamed to *.damaged with an error in the log, and the one before is
// used; Start refuses the directory if the log does not reach back to it. All bytes are verified if <dir>/verify-all
// exists, which is then removed; otherwise chunk segments by their sizes only.
func OpenSnapshots(dir string, logger *slog.Logger) (*SnapshotStore, error) {
	mark := filepath.Join(dir, verifyAllName)
	_, err := os.Stat(mark)
	full := err == nil
	s, err := openSnapshots(dir, logger, fsm.SnapshotVerifier(full))
	if err != nil || !full {
		return s, err
	}
	if err := os.Remove(mark); err != nil {
		return nil, err
	}
	return s, syncDir(dir)
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
		case name == incomingName: // survives restarts, the fetcher looks after it
			err = s.roomToOpen()
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
		err = verify(filepath.Join(dir, dataName))
	}
	if err == nil {
		s.metas = append(s.metas, m)
		return nil
	}
	if errors.Is(err, fsm.ErrNewer) {
		return fmt.Errorf("%s: %w", dir, err) // nothing is wrong with it
	}
	if id, ok := parseSnapshotID(name); ok {
		s.damaged = max(s.damaged, id.index)
	}
	s.logger.Error("Set aside a damaged Raft snapshot, the one before it is used", "snapshot", dir+damagedSuffix, "err", err)
	return os.Rename(dir, dir+damagedSuffix)
}

// dropDamaged keeps those set aside from filling the disk: they hold on to blocks that are long gone.
func (s *SnapshotStore) dropDamaged(names []string) error {
	index := func(name string) uint64 {
		id, _ := parseSnapshotID(strings.TrimSuffix(name, damagedSuffix))
		return id.index
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(index(a), index(b)) }) // not by letters: 9 before 10
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

// Latest returns the data directory of the newest good snapshot. ok is false when there is none. The
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
	if len(s.metas) == 0 {
		return time.Time{}
	}
	id, ok := parseSnapshotID(s.metas[0].Raft.ID)
	if !ok {
		return time.Time{}
	}
	return time.UnixMilli(id.msec)
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
		out = append(out, s.raftMetaLocked(m))
	}
	return out, nil
}

// raftMetaLocked returns a copy with the size that this node's offer has; the directory may have been made before the
// node had its id.
func (s *SnapshotStore) raftMetaLocked(m *snapshotMeta) *raft.SnapshotMeta {
	c := m.Raft
	c.Size = offerSize(s.node, m)
	return &c
}

// Open implements raft.SnapshotStore. The caller closes the reader, which pins the snapshot.
func (s *SnapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.findLocked(id)
	if m == nil {
		return nil, nil, fmt.Errorf("snapshot %s: %w", id, os.ErrNotExist)
	}
	c := s.raftMetaLocked(m)
	return c, &snapshotReader{store: s, meta: m, dir: s.dataDir(id), unpin: s.pinLocked(id)}, nil
}

func (s *SnapshotStore) findLocked(id string) *snapshotMeta {
	for _, m := range s.metas {
		if m.Raft.ID == id {
			return m
		}
	}
	return nil
}

// find returns a snapshot of that index and term, nil when there is none.
func (s *SnapshotStore) find(index, term uint64) *snapshotMeta {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.metas {
		if m.Raft.Index == index && m.Raft.Term == term {
			return m
		}
	}
	return nil
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
