// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package kill_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/ledger"
	"github.com/deucaliondb/deucalion/test/local"
)

// errNoProgress means that no write was acknowledged for a while.
var errNoProgress = errors.New("too few acknowledged writes")

// faults does one fault after the other to a cluster under load.
type faults struct {
	t       *testing.T
	cluster *local.Cluster
	ledger  *ledger.Ledger
	rng     *rand.Rand
}

// next lets the load run for a random number of writes, does a random fault to random nodes, and returns with
// all nodes ready again. Every third fault hits nodes that are flushing their memory.
func (f *faults) next() string {
	f.t.Helper()
	f.progress(f.rng.IntN(60))
	leader := harness.Leader(f.t, f.cluster)
	followers := f.cluster.Followers(leader)
	f.rng.Shuffle(len(followers), func(i, j int) { followers[i], followers[j] = followers[j], followers[i] })
	note := ""
	if f.rng.IntN(3) == 0 {
		defer f.flush()()
		note = " while flushing"
	}
	switch dice := f.rng.IntN(100); {
	case dice < 25:
		return f.kill("the leader"+note, leader)
	case dice < 40:
		return f.kill("a follower"+note, followers[0])
	case dice < 50:
		return f.kill("two followers"+note, followers...)
	case dice < 60:
		return f.kill("the leader and a follower"+note, leader, followers[0])
	case dice < 80:
		return f.kill("all"+note, append(followers, leader)...)
	case dice < 90:
		return f.stop(f.cluster.Nodes[f.rng.IntN(len(f.cluster.Nodes))]) + note
	default:
		return f.freeze(leader) + note
	}
}

// flush starts a user snapshot, which makes every node flush what it has in memory, and gives a function that
// waits for the end of the call. Whether it succeeds is up to the fault that it meets.
func (f *faults) flush() func() {
	cl := f.cluster.Nodes[f.rng.IntN(len(f.cluster.Nodes))].Client()
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := cl.Snapshot(ctx); err != nil {
			f.t.Logf("user snapshot under a fault: %v", err)
		}
	}()
	return func() {
		<-done
		cancel()
		cl.Close()
	}
}

// stop ends a node gracefully, which makes it snapshot its state, and starts it again.
func (f *faults) stop(n *local.Server) string {
	f.t.Helper()
	require.NoError(f.t, n.Stop())
	f.progress(f.rng.IntN(50))
	harness.Start(f.t, f.cluster)
	return "stopped " + n.Name
}

// kill ends nodes at the same moment. A majority that is left must go on alone; then the dead return,
// in the order in which they are given.
func (f *faults) kill(what string, nodes ...*local.Server) string {
	f.t.Helper()
	errs := make(chan error, len(nodes))
	for _, n := range nodes {
		go func() { errs <- n.Kill() }()
	}
	for range nodes {
		require.NoError(f.t, <-errs)
	}
	if 2*len(nodes) < len(f.cluster.Nodes) {
		f.progress(f.rng.IntN(100))
	}
	for _, n := range nodes {
		require.NoError(f.t, n.Start())
	}
	harness.Start(f.t, f.cluster)
	return fmt.Sprintf("killed %s (%s)", what, names(nodes))
}

// freeze stops the leader's process until another one leads and writes go on, then lets it find out.
func (f *faults) freeze(leader *local.Server) string {
	f.t.Helper()
	require.NoError(f.t, leader.Pause())
	f.progress(8)
	require.NoError(f.t, leader.Resume())
	harness.Start(f.t, f.cluster)
	return "froze the leader (" + leader.Name + ")"
}

// progress waits until n more writes are acknowledged.
func (f *faults) progress(n int) {
	f.t.Helper()
	want := f.ledger.Acks() + n
	harness.Await(f.t, 30*time.Second, fmt.Sprintf("%d acknowledged writes", want), func(context.Context) error {
		if acks := f.ledger.Acks(); acks < want {
			return fmt.Errorf("%w: %d", errNoProgress, acks)
		}
		return nil
	})
}

func names(nodes []*local.Server) string {
	out := make([]string, len(nodes))
	for i, n := range nodes {
		out[i] = n.Name
	}
	return strings.Join(out, " ")
}
