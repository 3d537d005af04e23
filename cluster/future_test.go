// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/deucaliondb/deucalion/cluster"
)

// TestForgottenFutures: what Raft still holds in its queues when it ends is answered, and nothing keeps waiting. Which
// entries those are is chance, so a node ends several times under a load that keeps the queues full.
func TestForgottenFutures(t *testing.T) {
	before := goleak.IgnoreCurrent()
	n := startNode(t, cluster.Config{NodeID: "n0", BootstrapExpect: 1})
	for range 5 {
		n.waitReady()
		offerUntilCrash(t, n)
		n.start()
	}
	n.stop()
	goleak.VerifyNone(t, before)
}

func offerUntilCrash(t *testing.T, n *testNode) {
	const writers, enough = 200, 2000
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	applied, _ := n.fsm.Applied()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			err := error(nil)
			for err == nil {
				err = n.Offer(ctx)
			}
			assert.True(t, errors.Is(err, cluster.ErrStopped) || errors.Is(err, raft.ErrLeadershipLost) || errors.Is(err, raft.ErrNotLeader), "%v", err)
		})
	}
	require.NoError(t, n.fsm.Wait(ctx, applied+enough))
	n.crash()
	wg.Wait()
}

// What waits for Raft when it ends hears whether the node stops or has failed.
func TestAwaitTellsWhyRaftEnded(t *testing.T) {
	stopped := startNode(t, cluster.Config{})
	stopped.waitReady()
	stopped.stop()
	err := stopped.Offer(t.Context())
	require.ErrorIs(t, err, cluster.ErrStopped)
	require.NotErrorIs(t, err, cluster.ErrFSMFailed)

	failed := startNode(t, cluster.Config{})
	failed.waitReady()
	_, err = failed.Propose(t.Context(), []byte("no entry at all"))
	require.ErrorIs(t, err, cluster.ErrFSMFailed)
	require.Eventually(t, func() bool {
		err := failed.Offer(t.Context())
		return errors.Is(err, cluster.ErrFSMFailed) && !errors.Is(err, cluster.ErrStopped)
	}, 60*time.Second, 5*time.Millisecond)
}

// A node whose state machine has failed goes on without Raft. Those who still send it Raft's messages give up after a
// while, and nothing is left of them.
func TestFailedNodeKeepsNoConnections(t *testing.T) {
	n := startNode(t, cluster.Config{NodeID: "n0"})
	n.waitReady()
	_, err := n.Propose(t.Context(), []byte("no entry at all"))
	require.ErrorIs(t, err, cluster.ErrFSMFailed)
	for range 20 {
		c, err := net.Dial("tcp", n.ListenAddress())
		require.NoError(t, err)
		_, _ = c.Write([]byte("R\x02n0\x00\x80")) // an AppendEntries without anything in it
		require.NoError(t, c.Close())
	}
	n.eventually("no connection is left", func() bool { return n.Connections() <= 2 }) // its own to itself
}
