// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package kill_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/ledger"
	"github.com/deucaliondb/deucalion/test/local"
)

// checkEvery is after how many faults all data are read and compared; doing it each time would make the
// run as slow as its data are many.
const checkEvery = 10

// TestKill is the loop that the package comment describes.
func TestKill(t *testing.T) {
	loops := int(harness.Number(t, "DEUCALION_KILL_LOOPS", 3))
	seed := harness.Number(t, "DEUCALION_KILL_SEED", rand.Uint64())
	t.Logf("DEUCALION_KILL_LOOPS=%d DEUCALION_KILL_SEED=%d", loops, seed)

	c := harness.New(t)
	l := ledger.New("kill")
	w := l.StartWriters(ledger.Load{
		Targets: harness.Clients(t, c.Nodes), Writers: 4, Series: 10, Samples: 5,
		Interval: 40 * time.Millisecond, Seed: seed, Extras: true,
	})
	defer w.Stop()
	f := &faults{t: t, cluster: c, ledger: l, rng: rand.New(rand.NewPCG(seed, 0))}
	for i := range loops {
		start := time.Now()
		what := f.next()
		t.Logf("fault %d of %d: %s, %s; %s", i+1, loops, what, time.Since(start).Round(time.Millisecond), l.Summary())
		if (i+1)%checkEvery == 0 && i+1 < loops {
			w.Pause()
			check(t, c, l)
			w.Resume()
		}
	}
	f.progress(50)
	w.Finish()
	check(t, c, l)
	t.Log(l.Summary())
}

// check reads all data of every node and holds them against the book and against each other.
func check(t *testing.T, c *local.Cluster, l *ledger.Ledger) {
	t.Helper()
	require.Empty(t, l.Faults(), "answers other than 2xx, 503 and broken connections")
	digests := map[string]string{}
	for _, n := range c.Nodes {
		data := harness.ReadAll(t, n)
		require.Empty(t, l.Check(data, 10), "data of %s", n.Name)
		digests[n.Name] = data.Digest()
	}
	for _, n := range c.Nodes {
		require.Equal(t, digests[c.Nodes[0].Name], digests[n.Name], "digests: %v", digests)
	}
	require.Empty(t, l.CheckExtras(harness.Same(t, c)))
}
