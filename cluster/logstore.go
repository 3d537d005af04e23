// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/bbolt"

	"github.com/deucaliondb/deucalion/internal/plant"
)

// Keys of ours in the stable store.
var (
	keyLogStore  = []byte("deucalion-log-store") // which kind of log store the directory was made with
	keyHealEntry = []byte("deucalion-heal-entry")
)

// logStore is what every layer of the log offers.
type logStore interface {
	raft.LogStore
	raft.MonotonicLogStore
}

// stores are the durable parts of Raft but the snapshots: log and vote.
type stores struct {
	log    logStore         // cache over guard over the store
	stable raft.StableStore // guarded
	guard  *guard           // what log and stable go through
	close  []io.Closer      // in this order
}

// storeOptions is the part of Config that the stores need.
type storeOptions struct {
	dir          string // <Dir>/raft
	kind         string
	segmentBytes int
	writeTimeout time.Duration
	files        types.VFS // of the WAL's segments; nil: the operating system's
	// keepFrom returns the index after which the log must be kept, whatever Raft says.
	keepFrom func() uint64
	logger   *slog.Logger
	metrics  *metrics
	onFatal  func(error)
}

// openStores opens or makes the stores below o.dir. A second process on the directory is refused.
func openStores(o storeOptions) (_ *stores, err error) {
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return nil, err
	}
	s := &stores{}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	bolt, err := openBolt(filepath.Join(o.dir, "stable.db"))
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, bolt)
	if err := checkKind(bolt, o.kind); err != nil {
		return nil, err
	}
	var base logStore
	if o.kind == LogStoreBoltDB {
		db, err := openBolt(filepath.Join(o.dir, "log.db"))
		if err != nil {
			return nil, err
		}
		s.close = append([]io.Closer{db}, s.close...)
		base = boltLog{db}
	} else {
		dir := filepath.Join(o.dir, "wal")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		w, err := wal.Open(dir, wal.WithSegmentSize(o.segmentBytes), wal.WithLogger(newHCLog(o.logger, "raft-wal")),
			wal.WithSegmentFiler(segment.NewFiler(dir, walFiles(o.files))))
		if err != nil {
			return nil, fmt.Errorf("raft log %s: %w", dir, err)
		}
		s.close = append([]io.Closer{w}, s.close...)
		if base, err = newHealingLog(w, bolt, o.logger, o.metrics); err != nil {
			return nil, err
		}
	}
	s.guard = newGuard(base, o)
	s.close = append([]io.Closer{s.guard}, s.close...)
	s.log = newLogCache(s.guard, logCacheEntries, logCacheBytes)
	s.stable = guardedStable{s.guard, bolt}
	return s, nil
}

// walFiles are the files that raft-wal writes to.
func walFiles(files types.VFS) types.VFS {
	if files == nil {
		files = fs.New()
	}
	if plant.SkipLogFsync {
		files = plant.Unsynced{VFS: files}
	}
	return files
}

// openBolt opens a bbolt store that is durable: only the free list, which can be rebuilt, is not written. Writing it
// costs more than the entries themselves once the log has been truncated a few times.
func openBolt(path string) (*raftboltdb.BoltStore, error) {
	b, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{
		Timeout:        time.Second,
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
	}})
	if errors.Is(err, bbolt.ErrTimeout) {
		return nil, fmt.Errorf("%s is locked: another process uses this data directory: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// checkKind refuses a directory that was made with another log store: its log would look empty, and a node that
// has forgotten what it acknowledged breaks Raft.
func checkKind(stable raft.StableStore, kind string) error {
	b, err := stableGet(stable, keyLogStore)
	if err != nil {
		return err
	}
	if len(b) == 0 {
		return stable.Set(keyLogStore, []byte(kind))
	}
	if string(b) != kind {
		return fmt.Errorf("%w: made with %q, opened with %q", ErrLogStoreMismatch, b, kind)
	}
	return nil
}

// stableGet returns nil for a key that was never set.
func stableGet(s raft.StableStore, key []byte) ([]byte, error) {
	b, err := s.Get(key)
	if err != nil && err.Error() == raftboltdb.ErrKeyNotFound.Error() {
		return nil, nil
	}
	return b, err
}

// Close stops the guard, then closes the files.
func (s *stores) Close() error {
	var errs []error
	for _, c := range s.close {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// boltLog is the bbolt log store. It could hold gaps, yet says that it cannot: then Raft empties the log when a
// leader's snapshot is installed, as with the WAL, and no start after that finds a hole behind an older snapshot.
type boltLog struct{ *raftboltdb.BoltStore }

// IsMonotonic implements raft.MonotonicLogStore.
func (boltLog) IsMonotonic() bool { return true }
