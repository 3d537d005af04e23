// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

const (
	// requestMemory is how many ids of deletes are remembered.
	requestMemory = 1024
	// roomRetry is the pause between two attempts of a step that found the disk full.
	roomRetry = 250 * time.Millisecond
)

// Apply applies one log entry. It must be called in log order, by the applier.
// Its effect on queries may be seen at once; it counts as applied when Publish
// says so. An entry that was refused by the rules is reported in the Result; an
// entry that cannot be applied at all stops the FSM (see Failed).
func (f *FSM) Apply(index, term uint64, entry []byte) Result {
	if err := f.Err(); err != nil {
		return Result{Index: index, Err: err.Error()}
	}
	k, p, err := open(entry)
	if err != nil {
		return f.fail(index, err)
	}
	f.m.entries.WithLabelValues(k.String()).Inc()
	f.store.SetPosition(index)
	r := Result{Index: index}
	if err := f.checkKind(k); err != nil {
		return f.fail(index, err)
	}
	switch k {
	case kindAppend:
		err = f.applyAppend(index, p, &r)
	case kindDelete:
		err = f.applyDelete(index, p)
	case kindClean:
		err = f.applyClean(p)
	case kindCutoff:
		err = f.applyCutoff(p)
	case kindUserSnapshot:
		err = f.applyUserSnapshot(p, &r)
	case kindSettings:
		err = f.applySettings(p)
	case kindDigest:
		err = f.applyDigest(index, p)
	case kindShipped:
		err = f.applyShipped(p)
	case kindImport:
		err = f.applyImport(index, p)
	case kindNoop:
	}
	if err != nil {
		return f.fail(index, err)
	}
	f.decided.add(&r)
	return r
}

// String is the value of the metrics label kind.
func (k kind) String() string {
	names := [...]string{"", "append", "delete", "clean", "cutoff", "snapshot", "noop", "settings", "digest", "shipped", "import"}
	if int(k) >= len(names) || names[k] == "" {
		return "unknown"
	}
	return names[k]
}

func (f *FSM) applyDelete(index uint64, p []byte) error {
	d, err := decodeDelete(p)
	if err != nil {
		return err
	}
	if d.ID != "" && !f.requests.add(d.ID) {
		return nil // a retry after a lost answer
	}
	f.deletes.add(index, p)
	// Counted afterwards: who has read the new count must not find the samples.
	defer f.erased.Add(1)
	return f.whenThereIsRoom(index, func() error { return f.store.Delete(d.Mint, d.Maxt, d.Selectors...) })
}

// whenThereIsRoom repeats a step while the disk is full, which is no broken invariant: the entry waits, and all after it,
// as an append does behind a flusher that has no room. Until then this node is not ready and may show a part of the step.
// Ends with Close.
func (f *FSM) whenThereIsRoom(index uint64, step func() error) error {
	err := step()
	if !diskFull(err) {
		return err
	}
	f.log.Error("A log entry waits for room on the disk", "index", index, "err", err)
	retry := time.NewTicker(roomRetry)
	defer retry.Stop()
	for diskFull(err) {
		select {
		case <-f.ctx.Done():
			return err
		case <-retry.C:
			err = step()
		}
	}
	f.log.Info("The log entry waits no longer", "index", index, "err", err)
	return err
}

func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (f *FSM) applyCutoff(p []byte) error {
	t, err := decodeCutoff(p)
	if err != nil {
		return err
	}
	f.store.SetCutoff(t)
	f.erased.Add(1)
	f.updateFloor()
	// An admitted sample is at or above the floor, so it is newer than anything in
	// the series dropped here: their ids and newest timestamps decide nothing any
	// more. Should a wider window lower the floor, dropHorizon still remembers how
	// far their samples may reach.
	if n := f.table.Load().dropIdle(f.floor); n > 0 {
		f.dropHorizon = max(f.dropHorizon, f.floor-1)
		f.m.seriesDropped.Add(float64(n))
	}
	return nil
}

func (f *FSM) applySettings(p []byte) error {
	s, err := decodeSettings(p)
	if err != nil {
		return err
	}
	if err := f.checkLevel(s); err != nil {
		return err
	}
	if old := f.settings.Load(); old.ClusterID != "" {
		s.ClusterID = old.ClusterID
	}
	f.settings.Store(&s)
	f.exemplars.resize(s.MaxExemplars)
	f.updateFloor()
	return nil
}

func (f *FSM) updateFloor() {
	f.floor = horizon(f.maxT.Load(), f.store.Cutoff(), f.settings.Load().OutOfOrderWindow)
}

func (f *FSM) applyClean(p []byte) error {
	id, err := decodeClean(p)
	if err != nil {
		return err
	}
	f.tasks.clean(id)
	return nil
}

func (f *FSM) applyDigest(index uint64, p []byte) error {
	d, err := decodeDigest(p)
	if err != nil {
		return err
	}
	f.digests.start(index, d)
	return nil
}

func (f *FSM) applyUserSnapshot(p []byte, r *Result) error {
	s, err := decodeUserSnapshot(p)
	if err != nil {
		return err
	}
	if !validName(s.Name) {
		r.Err = fmt.Sprintf("snapshot name %q: want letters, digits, dots, dashes and underscores", s.Name)
		return nil
	}
	f.tasks.userSnapshot(s)
	return nil
}

// requestLog remembers the newest ids of a kind of request.
type requestLog struct {
	order []string // oldest first
	known map[string]struct{}
}

// add returns false if id is remembered already.
func (l *requestLog) add(id string) bool {
	if _, ok := l.known[id]; ok {
		return false
	}
	if l.known == nil {
		l.known = map[string]struct{}{}
	}
	if len(l.order) == requestMemory {
		delete(l.known, l.order[0])
		l.order = l.order[1:]
	}
	l.order = append(l.order, id)
	l.known[id] = struct{}{}
	return true
}
