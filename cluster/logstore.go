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
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/deucaliondb/deucalion/internal/plant"
)

// Keys of ours in the stable store.
var (
	keyLogStore  = []byte("deucalion-log-store") // which kind of log store the directory was made with
	keyHealEntry = []byte("deucalion-heal-entry")
)

const stableFile = "stable.db"

// logStore is what every layer of the log offers.
type logStore interface {
	raft.LogStore
	raft.MonotonicLogStore
}

// stores are the durable parts of Raft but the snapshots: log and vote.
type stores struct {
	log    logStore         // cache over guard over the store
	stable raft.StableStore // guarded
	base   *sumLog          // below the guard
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
	stable := filepath.Join(o.dir, stableFile)
	bolt, err := openBolt(stable, partStable, inspectStable)
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, bolt)
	summed := sumStable{bolt, stable}
	if err := checkKind(summed, o.kind); err != nil {
		return nil, err
	}
	base, closer, err := openLog(o, summed)
	if err != nil {
		return nil, err
	}
	s.close = append([]io.Closer{closer}, s.close...)
	end, err := openEnd(filepath.Join(o.dir, endFile), o.logger)
	if err != nil {
		return nil, err
	}
	s.close = append([]io.Closer{end}, s.close...)
	s.base = &sumLog{logStore: base, dir: filepath.Join(o.dir, logName(o.kind)), end: end}
	s.guard = newGuard(s.base, o)
	s.close = append([]io.Closer{s.guard}, s.close...)
	s.log = newLogCache(s.guard, logCacheEntries, logCacheBytes)
	s.stable = guardedStable{s.guard, summed}
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

// logName is the log's file or directory.
func logName(kind string) string {
	if kind == LogStoreBoltDB {
		return "log.db"
	}
	return "wal"
}

// openLog opens the log store itself. The error is a *damage if what is on the disk is to blame.
func openLog(o storeOptions, stable raft.StableStore) (logStore, io.Closer, error) {
	path := filepath.Join(o.dir, logName(o.kind))
	if o.kind == LogStoreBoltDB {
		db, err := openBolt(path, partLog, nil)
		if err != nil {
			return nil, nil, err
		}
		return boltLog{db}, db, nil
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, nil, err
	}
	meta := filepath.Join(path, metadb.FileName)
	if err := checkBolt(meta); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, boltError(meta, partLog, err)
	}
	var w *wal.WAL
	err := recovered(func() (err error) {
		w, err = wal.Open(path, wal.WithSegmentSize(o.segmentBytes), wal.WithLogger(newHCLog(o.logger, "raft-wal")),
			wal.WithSegmentFiler(segment.NewFiler(path, walFiles(o.files))))
		return err
	})
	if err != nil {
		return nil, nil, boltError(path, partLog, err)
	}
	var h *healingLog
	err = recovered(func() (err error) {
		h, err = newHealingLog(w, stable, o.logger, o.metrics)
		return err
	})
	if err != nil {
		return nil, nil, errors.Join(boltError(path, partLog, err), w.Close())
	}
	return h, w, nil
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
