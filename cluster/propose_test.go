// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

// lateTimer is a context whose deadline has passed and whose timer has not fired yet, as on a busy machine.
type lateTimer struct {
	context.Context // fires
	deadline        time.Time
}

func (c lateTimer) Deadline() (time.Time, bool) { return c.deadline, true }

// A proposal that comes too late is not acknowledged: it is not in the log. Found by TestPartitions.
func TestProposeAfterItsDeadline(t *testing.T) {
	t.Parallel()
	n := startNode(t, cluster.Config{NodeID: "n0"})
	n.waitReady()
	fires, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	ctx := lateTimer{fires, time.Now().Add(-time.Microsecond)}
	_, err := n.Propose(ctx, fsm.EncodeNoop())
	require.ErrorIs(t, err, cluster.ErrNoLeader)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = n.write(ctx, 1)
	require.Error(t, err)
	require.Zero(t, n.count())
}
