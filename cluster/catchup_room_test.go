// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

// laggingDisk is a wiped node that needs everything, on a disk whose free bytes the test sets.
func laggingDisk(t *testing.T, rate int64) (l *lagging, free *atomic.Int64) {
	t.Helper()
	free = &atomic.Int64{}
	free.Store(10 * minFree)
	l = newLagging(t, func(c *cluster.Config) { c.SnapshotMaxRate = rate })
	l.behind.wipe()
	l.behind.cfg.MinFree = minFree
	l.behind.cfg.SetFree(free.Load)
	return l, free
}

func (n *testNode) gone() bool {
	_, err := os.Stat(n.incoming())
	return os.IsNotExist(err)
}

// noRoom waits until the node has given its catch-up up for want of room, and has left nothing behind.
func (n *testNode) noRoom() {
	n.t.Helper()
	n.eventually("it tells that there is no room", func() bool {
		st := n.CatchUp()
		return st != nil && strings.Contains(st.Err, cluster.ErrDiskFull.Error())
	})
	n.eventually("nothing is left of it", n.gone)
	require.Zero(n.t, n.metric("deucalion_raft_snapshot_installs_total"))
	require.Equal(n.t, 1.0, n.metric("deucalion_raft_catchup_active"))
}

// A node without room for what it lacks does not begin to fetch it, says how much it needs, and goes on by itself.
func TestCatchUpWaitsForRoom(t *testing.T) {
	l, free := laggingDisk(t, 0)
	n, total := l.behind, l.leader.offered()
	free.Store(minFree + total/2) // room for the tables, not for the blocks
	n.start()
	n.noRoom()
	require.Regexp(t, `\d+ bytes free, the catch-up needs \d+: \d+ to fetch and 1073741824 to leave alone`, n.CatchUp().Err)
	require.Less(t, n.fetched(), total/2, "the tables only")
	require.Positive(t, n.metric("deucalion_raft_catchup_missing_bytes"))
	free.Store(minFree + 2*total)
	l.caughtUp(t)
}

// A fetch ends when the disk gets full, and gives back what it has taken.
func TestCatchUpStopsOnAFullDisk(t *testing.T) {
	l, free := laggingDisk(t, 60_000)
	n, total := l.behind, l.leader.offered()
	n.start()
	n.eventually("it has begun", func() bool { return n.fetched() > 20_000 })
	require.False(t, n.gone())
	free.Store(minFree / 4)
	n.noRoom()
	require.Less(t, n.fetched(), total)
	n.waitDisk("critical")
	free.Store(10 * minFree)
	l.caughtUp(t)
}

// What an earlier process has fetched does not keep the next one from starting.
func TestStartDropsWhatFillsTheDisk(t *testing.T) {
	l, _ := laggingDisk(t, 150_000)
	n := l.behind
	n.start()
	n.eventually("it has begun", func() bool { return n.fetched() > 60_000 })
	n.crash()
	require.False(t, n.gone())
	var dropped atomic.Bool
	n.cfg.SetFree(func() int64 {
		if n.gone() {
			dropped.Store(true)
		}
		if dropped.Load() {
			return 10 * minFree
		}
		return minFree/8 - 1
	})
	n.start()
	l.caughtUp(t)
}

// Nor from opening its state, which comes before.
func TestOpenSnapshotsDropsWhatFillsTheDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("no file system of its own: mount: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	incoming := filepath.Join(dir, "snapshots-raft", "incoming")
	require.NoError(t, os.MkdirAll(filepath.Join(incoming, "blocks"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(incoming, "blocks", "x"), make([]byte, 4<<20), 0o644))
	_, err := cluster.OpenSnapshots(dir, testLogger(t, "n"))
	require.NoError(t, err)
	require.NoDirExists(t, incoming)
}

// The same without a watcher, by what the system says.
func TestCatchUpOnADiskThatIsFull(t *testing.T) {
	l := newLagging(t, nil)
	n := l.behind
	n.wipe()
	small := filepath.Join(n.incoming(), "blocks")
	require.NoError(t, os.MkdirAll(small, 0o755))
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=100k"); err != nil {
		t.Skipf("no file system of its own: mount: %v", err)
	}
	unmount := func() error { return syscall.Unmount(small, syscall.MNT_DETACH) }
	t.Cleanup(func() { _ = unmount() })
	n.start()
	n.eventually("it tells that there is no room, and leaves nothing behind", func() bool {
		st := n.CatchUp()
		left, err := os.ReadDir(small)
		return st != nil && strings.Contains(st.Err, syscall.ENOSPC.Error()) && err == nil && len(left) == 0
	})
	require.NoError(t, unmount())
	l.caughtUp(t)
}
