// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
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
		k.meta.Raft.ID = snapshotID{term: term, index: index, msec: msec}.String()
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

// snapshotSink is filled in one of two ways: fsmSnapshot.Persist puts files into dataDir, or the offer of a leader is
// written to it. Not goroutine-safe, but Close and Cancel may follow each other in any order and number, as Raft does.
type snapshotSink struct {
	store *SnapshotStore
	dir   string
	meta  snapshotMeta
	offer []byte // of a leader

	once sync.Once
	err  error
}

// ID implements raft.SnapshotSink.
func (k *snapshotSink) ID() string { return k.meta.Raft.ID }

// dataDir is the empty directory that a local snapshot is put into.
func (k *snapshotSink) dataDir() string { return filepath.Join(k.dir, dataName) }

// Write takes the offer of a leader.
func (k *snapshotSink) Write(p []byte) (int, error) {
	if len(k.offer)+len(p) > maxOffer {
		return 0, fmt.Errorf("%w: more than %d bytes", errBadOffer, maxOffer)
	}
	k.offer = append(k.offer, p...)
	return len(p), nil
}

// Close makes the snapshot durable and visible, in this order: files (already), names, meta.json, rename, parent.
// An offer whose files are not all here is refused with errCatchingUp and handed to the fetcher: Raft installs
// snapshots on its main loop, which must not wait for a transfer. The leader comes again, every ten seconds at least.
func (k *snapshotSink) Close() error {
	k.once.Do(func() {
		if k.err = k.finish(); k.err != nil {
			k.store.noteError(k.err)
			_ = os.RemoveAll(k.dir)
		}
	})
	return k.err
}

func (k *snapshotSink) finish() error {
	if k.offer != nil {
		err := k.takeOffer()
		if m := k.store.find(k.meta.Raft.Index, k.meta.Raft.Term); m != nil && errors.Is(err, errInstalled) {
			k.meta = *m // ID, which Raft opens next, is the installed one's
			return os.RemoveAll(k.dir)
		}
		if err != nil {
			return err
		}
	}
	if err := syncTree(k.dataDir()); err != nil {
		return err
	}
	if err := k.meta.measure(k.dir); err != nil {
		return err
	}
	k.meta.Raft.Size = offerSize(k.store.nodeID(), &k.meta)
	if err := k.meta.write(k.dir); err != nil {
		return err
	}
	if err := syncDir(k.dir); err != nil {
		return err
	}
	return k.store.publish(&k.meta, k.dir)
}

// takeOffer puts the offered snapshot into dataDir if it has been fetched.
func (k *snapshotSink) takeOffer() error {
	o, err := parseOffer(k.offer)
	if err != nil {
		return err
	}
	if o.Index != k.meta.Raft.Index || o.Term != k.meta.Raft.Term {
		return fmt.Errorf("%w: of index %d, term %d, the leader installs index %d, term %d",
			errBadOffer, o.Index, o.Term, k.meta.Raft.Index, k.meta.Raft.Term)
	}
	take := k.store.receiver()
	if take == nil {
		return fmt.Errorf("%w: nothing fetches snapshots here", errCatchingUp)
	}
	return take(o, k.dataDir())
}

// Cancel removes what is not finished.
func (k *snapshotSink) Cancel() error {
	var err error
	k.once.Do(func() {
		k.err = errors.New("snapshot was cancelled")
		err = os.RemoveAll(k.dir)
	})
	return err
}
