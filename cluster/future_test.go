// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
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
			assert.Contains(t, []error{raft.ErrRaftShutdown, raft.ErrLeadershipLost, raft.ErrNotLeader}, err)
		})
	}
	require.NoError(t, n.fsm.Wait(ctx, applied+enough))
	n.crash()
	wg.Wait()
}
