// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"io/fs"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

// put commits one sample of a series through n.
func (n *testNode) put(name string, at int64, v float64) fsm.Outcome {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	b := n.fsm.NewBatch()
	defer b.Release()
	b.Series(nil, labels.FromStrings("__name__", name))
	b.Float(at, v)
	out, err := b.Commit(ctx, n)
	require.NoError(n.t, err)
	return out
}

// waitBlock waits until n has a block with a sample at that time.
func (n *testNode) waitBlock(at int64) {
	n.t.Helper()
	require.Eventually(n.t, func() bool {
		return slices.ContainsFunc(n.fsm.BlockMetas(), func(m tsdb.BlockMeta) bool { return m.MinTime <= at && at < m.MaxTime })
	}, 30*time.Second, 5*time.Millisecond)
}

// A node meets a damaged block when it applies an entry, with no scrub that would come by itself: it decides nothing, ends,
// and has everything right after its next start.
func TestDamageMetInApply(t *testing.T) {
	t.Parallel()
	ended := make(chan string, 3)
	nodes := startCluster(t, func(c *cluster.Config) {
		id := c.NodeID
		c.OnFatal = func(error) { ended <- id }
		c.Settings = func() fsm.Settings { return fsm.Settings{OutOfOrderWindow: time.Hour} }
	})
	for _, n := range nodes {
		require.Eventually(t, func() bool { return n.fsm.Settings().OutOfOrderWindow > 0 }, 30*time.Second, 5*time.Millisecond)
	}
	leader, rest := leaderOf(t, nodes)
	for round, bad := range []*testNode{rest[0], leader} {
		from := int64(1_000_000 * (round + 1))
		good := nodes[0]
		if good == bad {
			good = nodes[1]
		}
		good.put("m", from, 1)
		index := good.put("m", from+10, 2).Index
		require.NoError(t, bad.fsm.Wait(t.Context(), index))
		require.NoError(t, bad.Snapshot(t.Context()))
		bad.waitBlock(from + 10)
		damageChunks(t, bad.cfg.Dir)

		late := good.put("m", from+5, 3)
		require.Empty(t, late.Refused)
		select {
		case id := <-ended:
			require.Equal(t, bad.ID(), id)
		case <-time.After(60 * time.Second):
			require.FailNow(t, "the damage is not repaired", "%v", bad.Ready())
		}
		require.Error(t, bad.Ready())
		applied, _ := bad.fsm.Applied()
		require.Less(t, applied, late.Index, "the entry that could not be decided on counts as applied")
		bad.stop()
		bad.back(nodes)
		bad.waitReady()
		for _, n := range nodes {
			require.NoError(t, n.fsm.Wait(t.Context(), late.Index))
		}
		require.Equal(t, map[fsm.Reason]int{fsm.Duplicate: 1}, bad.put("m", from+5, 4).Refused, "the first write wins")
		requireEqualData(t, bad, 3)
	}
}

// A disk that fails a write of a snapshot ends the node, as one that fails a write to the log does.
func TestFailedWriteEndsTheNode(t *testing.T) {
	ended := make(chan error, 1)
	n := startNode(t, cluster.Config{OnFatal: func(err error) { ended <- err }})
	n.waitReady()
	n.mustWrite(1)
	n.fsm.NoteWriteError(&fs.PathError{Op: "read", Path: "x", Err: syscall.EIO})
	n.mustWrite(2)
	n.fsm.NoteWriteError(&fs.PathError{Op: "sync", Path: "x", Err: syscall.EIO})
	select {
	case err := <-ended:
		require.ErrorIs(t, err, storage.ErrWrite)
	case <-time.After(60 * time.Second):
		require.FailNow(t, "the node goes on")
	}
	require.ErrorIs(t, n.Ready(), storage.ErrWrite)
	n.stop()
	n.start()
	n.waitReady()
	n.waitCount(2)
}
