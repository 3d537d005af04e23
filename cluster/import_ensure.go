// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/deucaliondb/deucalion/fsm"
)

const (
	// importKeep is how long the files of an import stay that this node has not met in its log. The proposal of such
	// a one has long failed.
	importKeep = time.Hour
	// importGrace is how long they stay after another member has fetched one of them, which may want the next: the state
	// machine of a member that finds them nowhere stops.
	importGrace = 10 * time.Minute
	importTidy  = time.Minute
)

var errNoImport = errors.New("no member has its files any more")

// Ensure implements fsm.ImportFiles. The applier waits in it: an entry that a node skipped would make it differ.
func (m *imports) Ensure(ctx context.Context, index uint64, x fsm.Import) (string, error) {
	m.touch(x.ID)
	if m.here(x) {
		return m.path(x.ID), m.mark(ctx, x.ID, index)
	}
	m.metrics.importWaiting.Set(1)
	defer m.metrics.importWaiting.Set(0)
	m.logger.Warn("The log has an import whose blocks are not here; nothing is applied until they are", "id", x.ID, "index", index, "bytes", x.Bytes())
	if err := os.Remove(filepath.Join(m.path(x.ID), importList)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	for wait := fetchRetryMin; ; wait = min(2*wait, fetchRetryMax) {
		err := m.fetchHere(ctx, x)
		if err == nil {
			m.logger.Info("The blocks of the import are here, going on", "id", x.ID, "index", index)
			return m.path(x.ID), m.mark(ctx, x.ID, index)
		}
		if ctx.Err() != nil || m.node.ctx.Err() != nil {
			return "", errors.Join(err, ErrStopped)
		}
		if errors.Is(err, errGone) {
			return "", fmt.Errorf("%w: %w", errNoImport, err)
		}
		m.logger.Warn("The blocks of an import have not come, trying again", "id", x.ID, "index", index, "err", err, "wait", wait)
		sleep(m.node.ctx, wait)
	}
}

// fetchHere asks all other members.
func (m *imports) fetchHere(ctx context.Context, x fsm.Import) error {
	r := m.node.book.raft.Load()
	if r == nil {
		return errors.New("raft is starting")
	}
	var from []string
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if string(s.ID) != m.node.id {
			from = append(from, string(s.ID))
		}
	}
	f, mine := m.fetch(x, from)
	select {
	case <-f.done:
		if f.err != nil && !mine {
			return fmt.Errorf("by another's request: %s", f.err) // hides errGone: not all were asked
		}
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	case <-m.node.ctx.Done():
		return ErrStopped
	}
}

// mark notes at which index an import is. On a full disk it waits for room.
func (m *imports) mark(ctx context.Context, id string, index uint64) error {
	if had, ok := m.marked(id); ok && had == index {
		return nil
	}
	defer m.metrics.importWaiting.Set(0)
	for wait := fetchRetryMin; ; wait = min(2*wait, fetchRetryMax) {
		err := writeFileDurably(filepath.Join(m.path(id), importIndex), strconv.AppendUint(nil, index, 10))
		if !isFull(err) {
			return err
		}
		if ctx.Err() != nil || m.node.ctx.Err() != nil {
			return errors.Join(err, ErrStopped)
		}
		m.metrics.importWaiting.Set(1)
		m.logger.Error("An import waits for room on the disk", "id", id, "index", index, "err", err, "wait", wait)
		sleep(m.node.ctx, wait)
	}
}

func (m *imports) marked(id string) (index uint64, ok bool) {
	b, err := os.ReadFile(filepath.Join(m.path(id), importIndex))
	if err != nil {
		return 0, false
	}
	index, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return index, err == nil
}

// tidy removes what no log needs any more.
func (m *imports) tidy(ctx context.Context) {
	tick(ctx, importTidy, func() { m.tidyOnce(importKeep, importGrace) })
}

func (m *imports) tidyOnce(keep, grace time.Duration) {
	es, err := os.ReadDir(m.dir)
	if err != nil {
		m.logger.Error("Cannot look at the files of imports", "err", err)
		return
	}
	for _, e := range es {
		id := e.Name()
		if strings.HasSuffix(id, uploadSuffix) || !m.obsolete(id, keep, grace) {
			continue
		}
		m.logger.Info("Removing the files of an import", "id", id)
		m.drop(id)
		m.mu.Lock()
		delete(m.used, id)
		delete(m.served, id)
		m.mu.Unlock()
	}
}

// allApplied tells that this node's log holds no entry of which it is not known yet whether it will be committed. A
// leader without a quorum may have had one for long; it keeps the files, and so the others can do without.
func (m *imports) allApplied() bool {
	last, err := m.node.stores.log.LastIndex()
	applied, _ := m.node.fsm.Applied()
	return err == nil && applied >= last
}

// obsolete tells whether the files of an import are of no use any more.
func (m *imports) obsolete(id string, keep, grace time.Duration) bool {
	m.mu.Lock()
	used, known := m.used[id]
	if !known {
		m.used[id] = time.Now()
	}
	busy := m.fetches[id] != nil || m.own == id
	if s := m.served[id]; s != nil && (s.active > 0 || time.Since(s.last) < grace) {
		busy = true
	}
	m.mu.Unlock()
	if busy {
		return false
	}
	index, ok := m.marked(id)
	if !ok {
		return known && time.Since(used) > keep && m.allApplied()
	}
	first, err := m.node.stores.log.FirstIndex()
	if err != nil {
		return false // the log tells of its errors itself
	}
	snapshot, _ := m.node.snapshots.newest()
	return snapshot >= index && (first == 0 || first > index)
}
