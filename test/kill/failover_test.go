// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package kill_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/ledger"
)

// failoverLimit is the longest that a write may wait for a new leader in most cases: an election may have no winner, and
// the next one begins a timeout later. The race detector makes everything slower several times over, and such a run
// looks for races, not for time.
func failoverLimit() time.Duration {
	if os.Getenv("DEUCALION_RACE") == "1" {
		return 10 * time.Second
	}
	return 3 * time.Second
}

// TestFailover kills the leader under load, several times: the next write must be acknowledged soon, and on
// the way writers may see nothing that they could not retry.
func TestFailover(t *testing.T) {
	c := harness.New(t)
	l := ledger.New("failover")
	w := l.StartWriters(ledger.Load{
		Targets: harness.Clients(t, c.Nodes), Writers: 6, Series: 20, Samples: 1, Interval: 5 * time.Millisecond, Seed: 1, Extras: true,
	})
	defer w.Stop()
	f := &faults{t: t, cluster: c, ledger: l}
	var gaps []time.Duration
	for range harness.Number(t, "DEUCALION_FAILOVERS", 3) {
		f.progress(200)
		leader := harness.Leader(t, c)
		require.NoError(t, leader.Kill())
		gap := awaitWrite(t, l, time.Now())
		t.Logf("%s killed, next write acknowledged after %s", leader.Name, gap.Round(time.Millisecond))
		require.LessOrEqual(t, gap, 3*failoverLimit(), "from the kill of %s to the next acknowledged write", leader.Name)
		gaps = append(gaps, gap)
		harness.Start(t, c)
	}
	slices.Sort(gaps)
	require.LessOrEqual(t, gaps[len(gaps)/2], failoverLimit(), "the median of %v", gaps)
	w.Finish()
	check(t, c, l)
	t.Log(l.Summary())
}

// awaitWrite waits for the acknowledgement of a write that began after the kill and tells how long that took.
func awaitWrite(t *testing.T, l *ledger.Ledger, kill time.Time) time.Duration {
	t.Helper()
	var gap time.Duration
	harness.Await(t, 30*time.Second, "a write after the kill", func(context.Context) error {
		end, ok := l.AckedSince(kill)
		if !ok {
			return fmt.Errorf("%w since the kill", errNoProgress)
		}
		gap = end.Sub(kill)
		return nil
	})
	return gap
}
