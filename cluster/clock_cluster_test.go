// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

// startWithClocks starts three nodes whose clocks the test sets off, in nanoseconds.
func startWithClocks(t *testing.T) (nodes []*testNode, off map[string]*atomic.Int64) {
	off = map[string]*atomic.Int64{}
	nodes = startCluster(t, func(c *cluster.Config) {
		by := &atomic.Int64{}
		off[c.NodeID] = by
		c.Now = func() time.Time { return time.Now().Add(time.Duration(by.Load())) }
	})
	return nodes, off
}

// clockOffset is what other says of n.
func (n *testNode) clockOffset(other *testNode) time.Duration {
	for _, s := range other.Nodes(n.t.Context()) {
		if s.ID == n.ID() {
			return time.Duration(s.ClockOffset * float64(time.Second))
		}
	}
	return 0
}

// A node whose clock is wrong steps aside, believes the others, and is back when its clock is.
func TestClockOfOneNodeWrong(t *testing.T) {
	t.Parallel()
	nodes, off := startWithClocks(t)
	for _, by := range []time.Duration{2 * time.Hour, -2 * time.Hour} {
		leader, rest := leaderOf(t, nodes)
		for _, n := range []*testNode{rest[0], leader} {
			off[n.ID()].Store(int64(by))
			require.ErrorIs(t, n.Ready(), cluster.ErrClockOff, "at once")
			for _, o := range nodes {
				if o != n {
					o.waitReady()
				}
			}
			sure, never := n.Newest()
			require.WithinDuration(t, time.Now().Add(min(by, 0)+cluster.MaxAhead), sure, time.Minute)
			require.WithinDuration(t, time.Now().Add(max(by, 0)+cluster.MaxAhead), never, time.Minute)
			oldest, newest := n.OwnTimes()
			require.WithinDuration(t, time.Now(), oldest, time.Minute)
			require.WithinDuration(t, time.Now(), newest, time.Minute)
			require.InDelta(t, by.Seconds(), n.metric("deucalion_cluster_clock_offset_seconds"), 5)
			require.Eventually(t, func() bool {
				id, ok := n.Leader()
				return ok && id != n.ID()
			}, 60*time.Second, 20*time.Millisecond, "it does not lead")
			n.eventually("its offset is told", func() bool { return (n.clockOffset(nodes[0]) - by).Abs() < 5*time.Second })
			off[n.ID()].Store(0)
			n.waitReady()
			require.InDelta(t, 0, n.metric("deucalion_cluster_clock_offset_seconds"), 5)
		}
	}
}

// The only one that can lead goes on leading; a node that starts with a wrong clock is not ready at all.
func TestClockWrongWithoutSuccessor(t *testing.T) {
	t.Parallel()
	nodes, off := startWithClocks(t)
	leader, rest := leaderOf(t, nodes)
	rest[0].stop()
	off[rest[1].ID()].Store(int64(time.Hour))
	require.ErrorIs(t, rest[1].Ready(), cluster.ErrClockOff)
	off[leader.ID()].Store(int64(-time.Hour))
	leader.mustWrite(1)
	before := leader.metric("deucalion_cluster_leadership_transfers_total")
	require.Never(t, func() bool { return leader.metric("deucalion_cluster_leadership_transfers_total") > before }, 3*time.Second, 100*time.Millisecond)
	leader.mustWrite(2)
	off[leader.ID()].Store(0)
	leader.waitReady()

	off[rest[0].ID()].Store(int64(2 * time.Hour))
	rest[0].start()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		require.Error(t, rest[0].Ready())
		if rest[0].count() == 2 && rest[0].Staleness() < time.Second {
			require.ErrorIs(t, rest[0].Ready(), cluster.ErrClockOff)
			break
		}
		time.Sleep(time.Millisecond)
	}
	require.NoError(t, ctx.Err())
}

// What would be in the future by one of the clocks is not imported, and may come again.
func TestImportByWrongClock(t *testing.T) {
	t.Parallel()
	nodes, off := startWithClocks(t)
	waitLevel(t, nodes)
	n := nodes[1]
	off[n.ID()].Store(-time.Now().UnixNano()) // the samples of blockOf are of 1970, too
	_, err := n.Import(t.Context(), blockOf(t, 0, 10))
	require.ErrorIs(t, err, cluster.ErrClockOff)
	require.NotErrorIs(t, err, cluster.ErrImportRefused)
	require.Empty(t, n.importDirs())
	require.Zero(t, n.count())
	off[n.ID()].Store(0)
	n.waitReady()
	require.EqualValues(t, 10, n.take(blockOf(t, 0, 10)).Samples)
	n.waitCount(10)
}
