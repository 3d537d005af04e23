// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

// A leader that reaches no other voter gives no read index and acknowledges no write, also as long as Raft still takes
// it for the leader: it cannot know whether others lead by now.
func TestLeaderWithoutMajority(t *testing.T) {
	t.Parallel()
	w := newNetwork()
	nodes := startPartitioned(t, w)
	asked := 0
	for round := range 5 {
		leader := confirmedLeader(t, nodes)
		w.set(true, false, around(leader, nodes)...)
		term, leads := leader.leads()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		wrote := make(chan error)
		go func() {
			_, err := leader.n.write(ctx, round)
			wrote <- err
		}()
		_, err := leader.n.ReadIndex(ctx)
		require.ErrorIs(t, err, cluster.ErrNoLeader, "read index of %s, which is cut off", leader.id)
		require.ErrorIs(t, <-wrote, cluster.ErrNoLeader, "write to %s, which is cut off", leader.id)
		cancel()
		if now, ok := leader.leads(); leads && ok && now == term {
			asked++
		}
		w.heal()
		leader.n.mustWrite(round) // what became of the first attempt is settled when this one is acknowledged
	}
	require.NotZero(t, asked, "every leader stepped down before it was asked")
	settle(t, nodes)
}

// confirmedLeader waits for a leader that gives read indexes.
func confirmedLeader(t *testing.T, nodes []*partNode) (leader *partNode) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, p := range nodes {
			if _, ok := p.leads(); ok {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				_, err := p.n.ReadIndex(ctx)
				leader = p
				return err == nil
			}
		}
		return false
	}, 20*time.Second, 10*time.Millisecond)
	return leader
}

// around is all flows between p and the others.
func around(p *partNode, nodes []*partNode) (cuts []flow) {
	for _, q := range nodes {
		if q != p {
			cuts = append(cuts, flow{p.id, q.id}, flow{q.id, p.id})
		}
	}
	return cuts
}
