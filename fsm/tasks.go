// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/deucaliondb/deucalion/storage"
)

const (
	// maxRunningTasks bounds the cleans and user snapshots under way: each of the
	// latter holds memtables and links of blocks.
	maxRunningTasks = 16
	// taskMemory is how many finished tasks are remembered for WaitTask.
	taskMemory = 1024
	// unfinishedSuffix marks the directory of a user snapshot that is being made.
	unfinishedSuffix = ".tmp"
)

var snapshotName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func validName(s string) bool {
	return snapshotName.MatchString(s) && !strings.HasSuffix(s, unfinishedSuffix)
}

// tasks runs what an entry asks each node to do in its own time.
type tasks struct {
	f    *FSM
	made *madeSnapshots
	wg   sync.WaitGroup

	// mu protects the following.
	mu    sync.Mutex
	known map[string]*task
	order []string // oldest first
	open  int
}

type task struct {
	clean bool
	done  chan struct{}
	err   error // valid once done is closed
}

func newTasks(f *FSM) *tasks {
	return &tasks{f: f, made: openMade(f.opts.Dir), known: map[string]*task{}}
}

// start runs work on a goroutine of its own, once for an id. It returns false
// if it does not: for an id that is known, or when too many tasks are under way,
// which then is the task's error.
func (t *tasks) start(id string, clean bool, work func(context.Context) error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known[id] != nil {
		return false
	}
	k := &task{clean: clean, done: make(chan struct{})}
	t.known[id] = k
	t.order = append(t.order, id)
	t.forgetLocked()
	if t.open >= maxRunningTasks {
		k.err = fmt.Errorf("%d cleans and snapshots are under way already; try again later", t.open)
		t.f.m.taskFailures.Inc()
		close(k.done)
		return false
	}
	t.open++
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		err := work(t.f.ctx)
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, storage.ErrClosed) {
			t.f.m.taskFailures.Inc()
			t.f.log.Error("A clean or user snapshot failed on this node", "id", id, "err", err)
		}
		t.mu.Lock()
		t.open--
		t.mu.Unlock()
		k.err = err
		close(k.done)
	}()
	return true
}

func (t *tasks) forgetLocked() {
	for len(t.order) > taskMemory {
		delete(t.known, t.order[0])
		t.order = t.order[1:]
	}
}

// forget makes start take id again.
func (t *tasks) forget(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.known, id)
	t.order = slices.DeleteFunc(t.order, func(x string) bool { return x == id })
}

func (t *tasks) wait() { t.wg.Wait() }

func (t *tasks) running() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open
}

// pendingCleans lists the cleans that are not finished; a snapshot carries them,
// so that a restart does not forget them.
func (t *tasks) pendingCleans() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ids []string
	for id, k := range t.known {
		select {
		case <-k.done:
		default:
			if k.clean {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

func (t *tasks) clean(id string) {
	t.start(id, true, func(ctx context.Context) error { return t.f.store.Clean(ctx) })
}

// userSnapshot takes hold of the state now and writes it in the background. One
// that was made already (the log is replayed) is left as it is: it has the same
// content, or somebody has moved or removed it.
func (t *tasks) userSnapshot(s UserSnapshot) {
	dst := filepath.Join(t.f.opts.Dir, "snapshots", s.Name)
	if t.made.has(s.Name) {
		t.start(s.ID, false, func(context.Context) error { return nil })
		return
	}
	if _, err := os.Stat(dst); err == nil { // a crash came before its name was noted
		t.start(s.ID, false, func(context.Context) error { return t.made.add(s.Name) })
		return
	}
	if t.f.store.LowDisk() {
		t.start(s.ID, false, func(context.Context) error { return ErrLowDisk })
		return
	}
	snap, err := t.f.store.Snapshot()
	if err != nil { // a full disk, say: nothing of the state is lost, only this snapshot is
		t.start(s.ID, false, func(context.Context) error { return err })
		return
	}
	if !t.start(s.ID, false, func(ctx context.Context) error {
		defer snap.Release()
		if err := writeUserSnapshot(ctx, snap, dst); err != nil {
			return err
		}
		return t.made.add(s.Name)
	}) {
		snap.Release()
	}
}

func writeUserSnapshot(ctx context.Context, snap *storage.Snapshot, dst string) error {
	tmp := dst + unfinishedSuffix
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.MkdirAll(tmp, 0o777); err != nil {
		return err
	}
	if _, err := snap.PersistClean(ctx, tmp); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, dst); err != nil {
		return err
	}
	return errors.Join(storage.SyncDir(filepath.Dir(dst)), storage.SyncDir(filepath.Dir(filepath.Dir(dst))))
}

// removeUnfinished removes what is left of user snapshots that a crash has ended: links that hold room.
func removeUnfinished(snapshots string) error {
	dirs, err := os.ReadDir(snapshots)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, d := range dirs {
		if strings.HasSuffix(d.Name(), unfinishedSuffix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(snapshots, d.Name())))
		}
	}
	return err
}

// WaitTask waits for this node's part of a clean or user snapshot and returns
// its error; ErrUnknownTask if the node knows none with this id (its entry is
// not applied yet, or long ago).
func (f *FSM) WaitTask(ctx context.Context, id string) error {
	f.tasks.mu.Lock()
	k := f.tasks.known[id]
	f.tasks.mu.Unlock()
	if k == nil {
		return ErrUnknownTask
	}
	select {
	case <-k.done:
		return k.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
