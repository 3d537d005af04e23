// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/deucaliondb/deucalion/storage"
)

// madeName is a file beside the user snapshots' directory, which is the operator's.
const madeName = "snapshots-made"

// madeSnapshots remembers the names of the newest user snapshots that this node
// has made. Without it a replay of the log would make those again that somebody
// has removed, mostly to have room. Goroutine-safe.
type madeSnapshots struct {
	path string

	adding sync.Mutex // protects the file; held while it is written
	mu     sync.Mutex // protects names; the applier takes it, so never while the disk works
	names  []string   // oldest first; who adds may read it without mu
}

// openMade reads what dir has. A file that cannot be read is as good as none:
// the worst that comes of it is a snapshot that nobody wants any more.
func openMade(dir string) *madeSnapshots {
	m := &madeSnapshots{path: filepath.Join(dir, madeName)}
	if b, err := os.ReadFile(m.path); err == nil {
		m.names = strings.Fields(string(b))
	}
	return m
}

func (m *madeSnapshots) has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.names, name)
}

// add is durable when it returns.
func (m *madeSnapshots) add(name string) error {
	m.adding.Lock()
	defer m.adding.Unlock()
	if slices.Contains(m.names, name) {
		return nil
	}
	names := append(slices.Clone(m.names), name)
	names = names[max(0, len(names)-taskMemory):]
	tmp := m.path + unfinishedSuffix
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := writeSynced(tmp, []byte(strings.Join(names, "\n")+"\n")); err != nil {
		return fmt.Errorf("note that snapshot %s is made: %w", name, err)
	}
	if err := os.Rename(tmp, m.path); err != nil {
		return err
	}
	err := storage.SyncDir(filepath.Dir(m.path))
	m.mu.Lock()
	m.names = names
	m.mu.Unlock()
	return err
}
