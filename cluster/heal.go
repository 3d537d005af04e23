// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Parts of <Dir>/raft that are set aside each by itself.
const (
	partLog    = "log"
	partStable = "stable"
)

// partSnapshot is how a snapshot that OpenSnapshots has set aside is counted.
const partSnapshot = "snapshot"

// damage is what is wrong with a part of the raft directory. It wraps ErrDamaged.
type damage struct {
	part string
	file string
	err  error
}

// Error implements error.
func (d *damage) Error() string { return fmt.Sprintf("%v: %s: %v", ErrDamaged, d.file, d.err) }

// Unwrap lets errors.Is find both.
func (d *damage) Unwrap() []error { return []error{ErrDamaged, d.err} }

// maxHeals bounds the attempts of one start: each part once, and once more.
const maxHeals = 3

// openDisk opens log and vote and verifies them. A member of a cluster sets aside what is damaged and gets it back from
// the others; until then it has no vote, see amnesia.go. A cluster of one has nobody to ask, so it refuses to start.
func (n *Node) openDisk(dir string, fresh bool) error {
	if fresh && n.lostDirectory(dir) {
		d := &damage{partLog, dir, errors.New("is gone, while there is a snapshot")}
		if err := n.heal(dir, d); err != nil {
			return err
		}
	}
	for attempt := 1; ; attempt++ {
		s, err := openStores(storeOptions{
			dir: dir, kind: n.cfg.LogStore, segmentBytes: n.cfg.LogSegmentBytes, writeTimeout: n.cfg.LogWriteTimeout,
			files:    n.cfg.hooks.files,
			keepFrom: n.keepLogFrom, logger: n.logger, metrics: n.metrics, onFatal: n.fatal,
		})
		if err == nil {
			if err = n.verifyStores(s); err == nil {
				n.stores = s
				last, err := s.log.LastIndex()
				n.fsm.SkipDigests(last)
				return err
			}
			err = errors.Join(err, s.Close())
		}
		var d *damage
		if !errors.As(err, &d) || attempt == maxHeals {
			return err
		}
		if err := n.heal(dir, d); err != nil {
			return err
		}
	}
}

// lostDirectory tells that a raft directory without an id has nothing else either, while the snapshots of an earlier
// life are there.
func (n *Node) lostDirectory(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, stableFile))
	index, _ := n.snapshots.newest()
	return err != nil && index > 0
}

// heal sets d's part aside. The order matters: this node forgets its vote before it forgets the entries.
func (n *Node) heal(dir string, d *damage) error {
	if !n.hadPeers() {
		return fmt.Errorf("%w; no other node is known that could give back what is lost: restore the data directory from a"+
			" backup, or empty it and start anew (if other nodes know this one as a member, it gets everything from them)", d)
	}
	if err := n.amnesia.begin(fmt.Sprintf("%s was damaged: %v", d.file, d.err)); err != nil {
		return err
	}
	names := []string{stableFile}
	if d.part == partLog {
		names = []string{logName(n.cfg.LogStore), endFile}
	}
	suffix := fmt.Sprintf("%s-%d", damagedSuffix, time.Now().UnixMilli())
	for _, name := range names {
		path := filepath.Join(dir, name)
		err := os.Rename(path, path+suffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := dropAside(path); err != nil {
			return err
		}
	}
	n.metrics.heals.WithLabelValues(d.part).Inc()
	n.logger.Error("Set aside a damaged part of the Raft state; this node gets it back from the others and has no vote until then",
		"file", d.file, "err", d.err, "kept_as", filepath.Join(dir, names[0])+suffix)
	return syncDir(dir)
}

// dropAside keeps the two newest of what was set aside for path.
func dropAside(path string) error {
	old, err := filepath.Glob(path + damagedSuffix + "-*")
	if err != nil {
		return err
	}
	slices.SortFunc(old, func(a, b string) int { // by time; the numbers may differ in length
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	for len(old) > retainDamaged {
		if err := os.RemoveAll(old[0]); err != nil {
			return err
		}
		old = old[1:]
	}
	return nil
}

// hadPeers tells whether others hold what this node has lost: there are other voters in the newest good snapshot or,
// without one, other nodes that this one was told of or has seen. A snapshot that names this node alone counts for more
// than a flag: with it, this node would lead at once, and what is lost would be lost without a word.
func (n *Node) hadPeers() bool {
	if c, ok := n.snapshots.configuration(); ok {
		return slices.ContainsFunc(voters(c.Servers), func(id string) bool { return id != n.id })
	}
	seen, _ := parseSeen(filepath.Join(n.cfg.Dir, "raft", seenFile))
	return len(n.cfg.Peers) > 0 || len(seen) > 0
}

// configuration is that of the newest good snapshot.
func (s *SnapshotStore) configuration() (c raft.Configuration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.metas) == 0 {
		return c, false
	}
	return s.metas[0].Raft.Configuration, true
}

// verifyStores holds log, mark, snapshots and vote against each other.
func (n *Node) verifyStores(s *stores) error {
	if err := forgetHalfBootstrap(s, n.snapshots); err != nil {
		return err
	}
	snap, snapTerm := n.snapshots.newest()
	lastTerm, err := verifyLog(s.base, snap, n.logger)
	if err != nil {
		return err
	}
	if err := checkLog(s.log, n.snapshots, n.logger); errors.Is(err, ErrDamaged) {
		return &damage{partLog, s.base.dir, err}
	} else if err != nil {
		return err
	}
	return n.verifyTerm(s.stable, max(lastTerm, snapTerm))
}

// verifyTerm: a node never holds an entry of a later term than its own. One that has lost its term takes at least that.
func (n *Node) verifyTerm(stable raft.StableStore, least uint64) error {
	term, err := stableUint64(stable, keyCurrentTerm)
	switch {
	case err != nil || term >= least:
		return err
	case term == 0 && n.amnesia.active():
		return stable.SetUint64(keyCurrentTerm, least)
	}
	return &damage{partStable, filepath.Join(n.cfg.Dir, "raft", stableFile), fmt.Errorf("term %d, while there are entries of term %d", term, least)}
}
