// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/internal/fault"
	"github.com/deucaliondb/deucalion/storage"
)

// fetch is the catch-up to one offer. Used by one goroutine.
type fetch struct {
	*catchUp
	offer    *offer
	progress *progress

	plan  *fsm.CatchUp // made once the state file is here
	unpin func() error // releases the base of the plan
}

func newFetch(c *catchUp, o *offer) *fetch {
	return &fetch{catchUp: c, offer: o, progress: newProgress(o)}
}

// run tries until everything is here. It gives up when the source does not have the snapshot any more, or sends a file
// that is wrong time and again, or when nothing has come for patience.
func (f *fetch) run(ctx context.Context) error {
	wait := fetchRetryMin
	for {
		before := f.progress.moved()
		err := f.holding(ctx, f.attempt)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.progress.fail(err)
		f.metrics.catchUpFailures.Inc()
		if errors.Is(err, errGone) || errors.Is(err, errWrongBytes) || isFull(err) || time.Since(f.progress.moved()) > f.patience {
			return err
		}
		if f.progress.moved().After(before) {
			wait = fetchRetryMin
		}
		f.logger.Warn("Catch-up interrupted, going on where it was", append(f.progress.args(), "err", err, "wait", wait)...)
		sleep(ctx, wait)
		wait = min(2*wait, fetchRetryMax)
	}
}

// holding runs do and renews the lease on the source's snapshot meanwhile: between two files there may be minutes, in
// which this node reads all of its own.
func (f *fetch) holding(ctx context.Context, do func(context.Context) error) error {
	renewing, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		state := f.offer.manifest.State
		tick(renewing, leaseTime/4, func() {
			r, err := f.node.client.openFile(renewing, f.offer.Node, f.offer.Snapshot, state.Path, state.Size)
			if err == nil {
				err = r.Close()
			}
			if err != nil && renewing.Err() == nil {
				f.logger.Debug("Lease on the offered snapshot not renewed", "err", err)
			}
		})
	})
	defer wg.Wait()
	defer cancel()
	return do(ctx)
}

// attempt does what is left to do. It may be called again after any error, also by another process.
func (f *fetch) attempt(ctx context.Context) error {
	if err := f.begin(); err != nil {
		return err
	}
	done, err := f.complete(ctx)
	if done || err != nil {
		return err
	}
	state := f.offer.manifest.State
	if f.plan == nil {
		if err := f.room(state.Size, f.stageDir(f.offer)); err != nil {
			return err
		}
	}
	if err := f.file(ctx, state.Path, state, f.statePath()); err != nil {
		return err
	}
	if f.plan == nil {
		if err := f.makePlan(ctx); err != nil {
			return err
		}
	}
	for _, b := range f.plan.Fetch {
		for _, x := range b.Files {
			if err := f.file(ctx, remotePath(b, x), x, f.blockFile(b, x)); err != nil {
				return err
			}
		}
		if err := f.strip(b); err != nil {
			return err
		}
	}
	fault.Point(fault.CatchUpFetched)
	return f.assemble(ctx)
}

func (f *fetch) statePath() string {
	return filepath.Join(f.stageDir(f.offer), f.offer.manifest.State.Path)
}

func (f *fetch) blocksDir() string { return filepath.Join(f.dir, blocksName) }

func (f *fetch) blockFile(b storage.BlockFiles, x storage.File) string {
	return filepath.Join(f.blocksDir(), b.ULID.String(), filepath.FromSlash(x.Path))
}

// begin makes the staging directory, or takes over that of an earlier attempt at the same offer.
func (f *fetch) begin() error {
	name := filepath.Join(f.stageDir(f.offer), offerName)
	b, err := os.ReadFile(name)
	if err == nil && bytes.Equal(b, f.offer.raw) {
		return nil
	}
	if err := os.RemoveAll(f.stageDir(f.offer)); err != nil {
		return err
	}
	if err := os.MkdirAll(f.stageDir(f.offer), 0o755); err != nil {
		return err
	}
	return writeFileDurably(name, f.offer.raw)
}

// complete tells whether an earlier process has brought everything here. It is verified again: it may have lain here
// for long.
func (f *fetch) complete(ctx context.Context) (bool, error) {
	dir := f.dataDir(f.offer)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	all, err := fsm.OpenBase(ctx, dir) // unlike fsm.VerifySnapshot it can be stopped
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err == nil {
		err = errors.Join(all.Damaged()...)
	}
	if err == nil {
		f.logger.Info("The offered snapshot has been fetched before", "snapshot", f.offer.Snapshot)
		return true, nil
	}
	f.logger.Error("What was fetched before is damaged, fetching it again", "snapshot", f.offer.Snapshot, "err", err)
	return false, os.RemoveAll(dir)
}

// makePlan decides what is fetched and what is kept.
func (f *fetch) makePlan(ctx context.Context) error {
	f.freshBase(ctx)
	base := f.openBase(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	plan, err := fsm.PlanCatchUp(f.offer.manifest, f.statePath(), base)
	if err != nil {
		return err
	}
	if err := f.forget(plan); err != nil {
		return err
	}
	var from uint64
	if base != nil && plan.Reason == "" {
		from = base.Index()
	}
	f.progress.plan(from, plan.FetchBytes(), plan.KeepBytes())
	if err := f.room(plan.FetchBytes(), f.blocksDir()); err != nil {
		return err
	}
	f.plan = plan
	args := append(f.progress.args(), "fetch_blocks", len(plan.Fetch), "keep_blocks", len(plan.Keep))
	if plan.Reason != "" {
		args = append(args, "nothing_kept_because", plan.Reason)
	}
	f.logger.Info("Too far behind for the log, catching up by a snapshot of another node", args...)
	return nil
}

// forget removes the blocks of earlier fetches that this one does not want.
func (f *fetch) forget(plan *fsm.CatchUp) error {
	es, err := os.ReadDir(f.blocksDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	wanted := make(map[string]bool)
	for _, b := range plan.Fetch {
		wanted[b.ULID.String()] = true
	}
	for _, e := range es {
		if !wanted[e.Name()] {
			if err := os.RemoveAll(filepath.Join(f.blocksDir(), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// strip removes from a fetched block what does not belong to it, for a block is linked with all that lies in its
// directory: beginnings of files as another offer had them.
func (f *fetch) strip(b storage.BlockFiles) error {
	dir := filepath.Join(f.blocksDir(), b.ULID.String())
	listed := make(map[string]bool)
	for _, x := range b.Files {
		listed[f.blockFile(b, x)] = true
	}
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || listed[p] {
			return err
		}
		return os.Remove(p)
	})
}

// assemble puts the snapshot together. The rename marks it as complete.
func (f *fetch) assemble(ctx context.Context) error {
	dir := f.dataDir(f.offer)
	tmp := dir + tmpSuffix
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	if err := f.plan.Assemble(ctx, tmp, f.blocksDir(), f.statePath()); err != nil {
		f.dropBase() // it may be the base that has gone bad: look again
		return fmt.Errorf("assemble: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	if err := syncDir(f.stageDir(f.offer)); err != nil {
		return err
	}
	f.metrics.catchUpKept.Add(float64(f.plan.KeepBytes()))
	f.logger.Info("Everything is here, waiting for the leader to install it", f.progress.args()...)
	return nil
}

// dropStaged removes other staged snapshots: this one has all that they have.
func (f *fetch) dropStaged() {
	for _, s := range f.staged() {
		if s.name != f.offer.Snapshot && !strings.HasSuffix(s.name, tmpSuffix) {
			f.remove(filepath.Join(f.dir, s.name))
		}
	}
}
