// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/internal/plant"
)

// Create implements raft.SnapshotStore. Nothing is visible before the sink is closed.
func (s *SnapshotStore) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration,
	confIndex uint64, _ raft.Transport,
) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("unsupported snapshot version %d", version)
	}
	if plant.ApplyTwice && index > 3 {
		index -= 3
	}
	k := &snapshotSink{store: s}
	k.meta.Raft = raft.SnapshotMeta{
		Version: version, Index: index, Term: term, Configuration: conf, ConfigurationIndex: confIndex,
	}
	for msec := time.Now().UnixMilli(); ; msec++ {
		k.meta.Raft.ID = fmt.Sprintf("%d-%d-%d", term, index, msec)
		k.dir = filepath.Join(s.dir, k.meta.Raft.ID) + tmpSuffix
		if _, err := os.Stat(filepath.Join(s.dir, k.meta.Raft.ID)); err == nil {
			continue // made in the same millisecond
		}
		err := os.Mkdir(k.dir, 0o755)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return k, os.Mkdir(k.dataDir(), 0o755)
	}
}

// snapshotSink is filled in one of two ways: fsmSnapshot.Persist puts files into dataDir, or the stream of a leader is
// written to it. Not goroutine-safe, but Close and Cancel may follow each other in any order and number, as Raft does.
type snapshotSink struct {
	store *SnapshotStore
	dir   string
	meta  snapshotMeta

	pipe     *io.PipeWriter // set by the first Write
	unpacked chan error

	once sync.Once
	err  error
}

// ID implements raft.SnapshotSink.
func (k *snapshotSink) ID() string { return k.meta.Raft.ID }

// dataDir is the empty directory that a local snapshot is put into.
func (k *snapshotSink) dataDir() string { return filepath.Join(k.dir, dataName) }

// Write takes the stream of a leader and unpacks it as it arrives.
func (k *snapshotSink) Write(p []byte) (int, error) {
	if k.pipe == nil {
		r, w := io.Pipe()
		k.pipe, k.unpacked = w, make(chan error, 1)
		go func() {
			files, err := unpackSnapshot(r, k.dataDir())
			_ = r.CloseWithError(err)
			k.meta.Files = files
			k.unpacked <- err
		}()
	}
	return k.pipe.Write(p)
}

// Close makes the snapshot durable and visible, in this order: files (already), names, meta.json, rename, parent.
func (k *snapshotSink) Close() error {
	k.once.Do(func() {
		if k.err = k.finish(); k.err != nil {
			_ = os.RemoveAll(k.dir)
		}
	})
	return k.err
}

func (k *snapshotSink) finish() error {
	if k.pipe != nil {
		_ = k.pipe.Close()
		if err := <-k.unpacked; err != nil {
			return fmt.Errorf("received snapshot: %w", err)
		}
	}
	files, err := syncTree(k.dataDir())
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("snapshot without files")
	}
	if k.pipe == nil {
		k.meta.Files = files
	} else if len(files) != len(k.meta.Files) {
		return fmt.Errorf("received snapshot: %d files on disk, %d in the stream", len(files), len(k.meta.Files))
	}
	if k.meta.Raft.Size, err = streamSize(k.meta.Files); err != nil {
		return err
	}
	if err := k.meta.write(k.dir); err != nil {
		return err
	}
	if err := syncDir(k.dir); err != nil {
		return err
	}
	return k.store.publish(&k.meta, k.dir)
}

// Cancel removes what is not finished.
func (k *snapshotSink) Cancel() error {
	var err error
	k.once.Do(func() {
		k.err = errors.New("snapshot was cancelled")
		if k.pipe != nil {
			_ = k.pipe.CloseWithError(k.err)
			<-k.unpacked
		}
		err = os.RemoveAll(k.dir)
	})
	return err
}
