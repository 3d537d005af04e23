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
	"github.com/deucaliondb/deucalion/internal/filetest"
)

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

// A node without room for what it lacks does not begin to fetch it and says how much it needs; a fetch ends when the disk
// gets full; what was fetched keeps no process from starting; and with room it goes on by itself.
func TestCatchUpNeedsRoom(t *testing.T) {
	t.Parallel()
	l := newLagging(t, func(c *cluster.Config) { c.SnapshotMaxRate = 60_000 })
	n, total := l.behind, l.leader.offered()
	n.wipe()
	var free atomic.Int64
	n.cfg.MinFree = minFree
	n.cfg.SetFree(free.Load)
	free.Store(minFree + total/2) // room for the tables, not for the blocks
	n.start()
	n.noRoom()
	require.Regexp(t, `\d+ bytes free, the catch-up needs \d+: \d+ to fetch and 1073741824 to leave alone`, n.CatchUp().Err)
	before := n.fetched()
	require.Less(t, before, total/2, "the tables only")
	require.Positive(t, n.metric("deucalion_raft_catchup_missing_bytes"))

	free.Store(10 * minFree)
	begun := func() bool { return n.fetched() > before+30_000 }
	n.eventually("it has begun", begun)
	require.False(t, n.gone())
	free.Store(minFree / 4)
	n.noRoom()
	n.waitDisk("critical")
	require.Less(t, n.fetched(), before+total)

	before = n.fetched()
	free.Store(10 * minFree)
	n.eventually("it has begun once more", begun)
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

// What was fetched leaves the room that opening the state takes, which comes before.
func TestOpenSnapshotsDropsWhatFillsTheDisk(t *testing.T) {
	dir := t.TempDir()
	filetest.Mount(t, dir, "size=8m")
	incoming := filepath.Join(dir, "snapshots-raft", "incoming")
	require.NoError(t, os.MkdirAll(filepath.Join(incoming, "blocks"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(incoming, "blocks", "x"), make([]byte, 4<<20), 0o644))
	_, err := cluster.OpenSnapshots(dir, testLogger(t, "n"))
	require.NoError(t, err)
	require.NoDirExists(t, incoming)
}

// Without a watcher it is the system that says so.
func TestCatchUpOnADiskThatIsFull(t *testing.T) {
	t.Parallel()
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
