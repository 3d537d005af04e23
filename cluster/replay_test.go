// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

// After a restart the log is replayed from the snapshot on, and from nowhere before: an append that the snapshot has
// would bring back what a delete in the snapshot has removed.
func TestReplayBeginsAtTheSnapshot(t *testing.T) {
	n := startNode(t, cluster.Config{Settings: func() fsm.Settings { return fsm.Settings{OutOfOrderWindow: time.Hour} }})
	n.waitReady()
	require.Eventually(t, func() bool { return n.fsm.Settings().OutOfOrderWindow > 0 }, 30*time.Second, 5*time.Millisecond)
	for i := range 4 {
		n.mustWrite(i)
		_, err := n.Propose(t.Context(), fsm.EncodeDelete(fsm.Delete{
			ID: fmt.Sprint("delete-", i), Mint: 0, Maxt: 1 << 40,
			Selectors: [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}},
		}))
		require.NoError(t, err)
		require.Zero(t, n.samples())
		require.NoError(t, n.Snapshot(t.Context()))
		if i%2 == 0 {
			n.crash()
		} else {
			n.stop()
		}
		n.start()
		n.waitReady()
		require.Zero(t, n.samples(), "deleted samples are back after a restart")
	}
}

// samples counts what this node has.
func (n *testNode) samples() (count int) {
	n.t.Helper()
	all, err := n.dump(labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	require.NoError(n.t, err)
	for _, row := range all {
		count += len(row)
	}
	return count
}
