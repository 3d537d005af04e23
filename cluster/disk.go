// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/deucaliondb/deucalion/fsm"
)

const (
	diskEvery = time.Second
	// diskHandOver is the pause between two attempts to get rid of the leadership.
	diskHandOver = 5 * time.Second

	maxDefaultMinFree = 1 << 30
)

// DefaultMinFree is what Config.MinFree should be on the file system of dir when nobody has said it: 1 GiB, at most a
// tenth of the whole, so that small volumes are of use.
func DefaultMinFree(dir string) int64 {
	total, err := totalBytes(dir)
	if err != nil {
		return maxDefaultMinFree
	}
	return min(maxDefaultMinFree, total/10)
}

// diskLevel says how much room there is.
type diskLevel int32

const (
	diskOK       diskLevel = iota
	diskLow                // below Config.MinFree: this node gives up what others can do
	diskCritical           // below half of it: this node writes nothing more to its log
)

// String is the level as it stands in a status, "" for diskOK.
func (l diskLevel) String() string { return [...]string{"", "low", "critical"}[l] }

// disk watches the room that is left. A disk that is really full is too late: the log store needs a restart after it, and
// the memtables' TSDB panics when it cannot write a chunk. So a node stops short of that, first for the sake of those
// that have room, then altogether; what it stopped, it resumes by itself.
type disk struct {
	min    int64 // 0: not watched
	dirs   []string
	statfs func(dir string) (int64, error)
	logger *slog.Logger
	blind  bool // the last look failed; the watcher's own

	free    atomic.Int64
	current atomic.Int32 // a diskLevel
	spare   atomic.Bool  // this node is low, and a majority without it has room
	tight   atomic.Bool  // a majority is low
}

func newDisk(cfg Config) *disk {
	d := &disk{
		min: max(cfg.MinFree, 0), dirs: []string{cfg.Dir, filepath.Join(cfg.Dir, "raft")},
		statfs: cfg.statfs, logger: cfg.Logger,
	}
	if d.statfs == nil {
		d.statfs = freeBytes
	}
	return d
}

func (d *disk) level() diskLevel { return diskLevel(d.current.Load()) }

// measure looks at the file systems and returns whether the level has changed.
func (d *disk) measure() (changed bool) {
	free := int64(math.MaxInt64)
	for _, dir := range d.dirs {
		n, err := d.statfs(dir)
		if err != nil {
			if !d.blind {
				d.logger.Warn("Cannot tell how much room the disk has", "dir", dir, "err", err)
			}
			d.blind = true
			return false
		}
		free = min(free, n)
	}
	d.blind = false
	d.free.Store(free)
	was := d.level()
	now := d.judge(was, free)
	d.current.Store(int32(now))
	return was != now
}

// startShare is the part of min that must be free for a start: replaying the log fills memtables, which write chunks.
// While it runs a node keeps four times as much; only something else on this disk can have taken it.
const startShare = 8

// checkStart refuses a start on a disk that is so full that TSDB would panic.
func (d *disk) checkStart() error {
	d.free.Store(math.MaxInt64) // where it cannot be told
	d.measure()
	if free := d.free.Load(); free < d.min/startShare {
		return fmt.Errorf("%w: %d bytes free, a start needs %d (an eighth of --storage.min-free): make room, or lower the flag",
			ErrDiskFull, free, d.min/startShare)
	}
	return nil
}

// judge applies the marks. A level is left only a tenth above the mark at which it was entered.
func (d *disk) judge(was diskLevel, free int64) diskLevel {
	mark := func(level diskLevel, m int64) bool {
		if was >= level {
			m += m / 10
		}
		return free < m
	}
	switch {
	case d.min == 0:
		return diskOK
	case mark(diskCritical, d.min/2):
		return diskCritical
	case mark(diskLow, d.min):
		return diskLow
	}
	return diskOK
}

// refusesEntries: a follower takes no entries when there are enough others, or when there is no room at all. It still
// hears heartbeats and votes.
func (d *disk) refusesEntries() bool {
	l := d.level()
	return l == diskCritical || l == diskLow && d.spare.Load()
}

// err is nil when there is room.
func (d *disk) err() error {
	if d.level() == diskOK {
		return nil
	}
	return fmt.Errorf("%w: %d bytes free, want %d", ErrDiskFull, d.free.Load(), d.min)
}

// admit tells the leader whether it may propose entry. What makes room passes longest.
func (d *disk) admit(entry []byte) error {
	switch level := d.level(); {
	case level == diskCritical:
		return d.err()
	case !fsm.IsAppend(entry):
		return nil
	case level == diskLow && d.spare.Load():
		return fmt.Errorf("%w: handing over, the disk is nearly full", errNotLeader) // tried again with the next leader
	case level == diskLow:
		return d.err()
	case d.tight.Load():
		return fmt.Errorf("%w: on a majority of the nodes", ErrDiskFull)
	}
	return nil
}

// watchDisk keeps the level up to date, and acts on it.
func (n *Node) watchDisk(ctx context.Context) {
	if n.disk.min == 0 {
		return
	}
	var handed time.Time
	check := func() {
		if n.disk.measure() {
			n.diskChanged()
		}
		if n.disk.level() == diskOK && !n.isLeader() {
			n.disk.spare.Store(false)
			n.disk.tight.Store(false)
			return
		}
		n.askForRoom(ctx)
		if n.isLeader() && n.disk.spare.Load() && time.Since(handed) > diskHandOver {
			handed = time.Now()
			if err := n.handOver(ctx); err != nil && ctx.Err() == nil {
				n.logger.Warn("The leadership stays on a node with little room, trying again", "err", err)
			}
		}
	}
	check()
	tick(ctx, diskEvery, check)
}

func (n *Node) diskChanged() {
	level := n.disk.level()
	n.fsm.SetLowDisk(level != diskOK)
	n.catchUp.diskChanged()
	l := n.logger.With("free", n.disk.free.Load(), "min_free", n.disk.min)
	switch level {
	case diskOK:
		l.Info("The disk has room again, going on")
	case diskLow:
		l.Warn("The disk is nearly full: this node is not ready, does not lead if another can, and merges nothing")
	case diskCritical:
		l.Error("The disk is full: this node takes no more entries until there is room")
	}
}

// askForRoom asks the voters how much room they have.
func (n *Node) askForRoom(ctx context.Context) {
	ids := voters(n.servers())
	majority := len(ids)/2 + 1
	roomy, low := 0, 0
	for id, r := range n.reports(ctx, ids) {
		switch {
		case r.Disk != "":
			low++
		case id != n.id && r.Recovering == "" && r.Err == "":
			roomy++
		}
	}
	n.disk.spare.Store(n.disk.level() != diskOK && roomy >= majority)
	n.disk.tight.Store(len(ids) > 0 && low >= majority)
}
