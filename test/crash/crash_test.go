// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package crash_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/internal/fault"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/ledger"
	"github.com/deucaliondb/deucalion/test/local"
)

const (
	// reachTimeout is how long an armed node may take to reach its point.
	reachTimeout = 90 * time.Second
	// checkEvery and epoch are in rounds: all data are read and compared, and all data are deleted, so that reading
	// them stays quick and deletes of much are tried as well.
	checkEvery = 3
	// logLost is a log index after whose snapshot the log no longer begins at 1: 256 entries stay behind one.
	logLost = 600
	epoch   = 12
)

var (
	errAlive      = errors.New("the armed node is alive")
	errNoSnapshot = errors.New("too few snapshots")
	errNoProgress = errors.New("too few acknowledged writes")
)

// TestCrashPoints is what the package comment describes.
func TestCrashPoints(t *testing.T) {
	rounds := int(harness.Number(t, "DEUCALION_CRASH_ROUNDS", 4))
	seed := harness.Number(t, "DEUCALION_CRASH_SEED", rand.Uint64())
	t.Logf("DEUCALION_CRASH_ROUNDS=%d DEUCALION_CRASH_SEED=%d", rounds, seed)
	conf := filepath.Join(t.TempDir(), "deucalion.yml")
	require.NoError(t, os.WriteFile(conf, []byte("storage:\n  tsdb: {out_of_order_time_window: 1h}\n"+
		"  exemplars: {max_exemplars: 1000}\n"), 0o644))
	c := &crasher{
		t: t, rng: rand.New(rand.NewPCG(seed, 0)),
		cluster: harness.New(t, "--config.file="+conf, "--storage.freeze-samples=2000", "--raft.snapshot-entries=150",
			"--raft.trailing-log-bytes=1B", "--raft.log-segment-bytes=128KB"),
	}
	c.targets = harness.Clients(t, c.cluster.Nodes)
	c.victims = startVictims(c.targets, seed)
	defer c.victims.Stop()
	c.load(seed)
	defer func() { c.writers.Stop() }()

	var turn []fault.Name
	all := points(t)
	for i := range rounds {
		if len(turn) == 0 {
			turn = append(turn, all...)
			c.rng.Shuffle(len(turn), func(i, j int) { turn[i], turn[j] = turn[j], turn[i] })
		}
		start := time.Now()
		what := c.round(turn[0])
		turn = turn[1:]
		t.Logf("round %d of %d: %s, %s; %s, %d victims", i+1, rounds, what,
			time.Since(start).Round(time.Millisecond), c.ledger.Summary(), c.victims.next)
		if (i+1)%checkEvery == 0 || i+1 == rounds {
			c.check()
		}
		if (i+1)%epoch == 0 && i+1 < rounds {
			c.newEpoch(seed + uint64(i))
		}
	}
	t.Logf("in all: %d samples acknowledged, %d victims", c.past+c.ledger.AckedSamples(), c.victims.next)
}

// crasher lets nodes of a cluster under load die.
type crasher struct {
	t       *testing.T
	cluster *local.Cluster
	rng     *rand.Rand
	targets []*client.Client
	victims *victims

	epochs  int
	past    int // samples acknowledged in earlier epochs
	ledger  *ledger.Ledger
	writers *ledger.Writers
}

func (c *crasher) load(seed uint64) {
	c.epochs++
	c.ledger = ledger.New(fmt.Sprint("crash-", c.epochs))
	c.writers = c.ledger.StartWriters(ledger.Load{
		Targets: c.targets, Writers: 4, Series: 5, Samples: 1, Interval: 20 * time.Millisecond, Seed: seed, Extras: true,
	})
}

// round lets one node die at a point, sometimes all others with it, and returns when all are ready again.
func (c *crasher) round(name fault.Name) string {
	c.t.Helper()
	c.progress(c.rng.IntN(50))
	n := c.cluster.Nodes[c.rng.IntN(len(c.cluster.Nodes))]
	wiped := c.prepare(name, n)
	nth := visit(c.rng, name)
	c.t.Logf("%s shall die at visit %d of %s", n.Name, nth, name)
	mark := c.logSize(n)
	require.NoError(c.t, n.Start(fmt.Sprintf("DEUCALION_FAULT=%s=kill@%d", name, nth)))
	c.awaitDeath(n, name, mark)
	note := ""
	if wiped {
		note = ", wiped"
	} else if c.rng.IntN(6) == 0 {
		for _, m := range c.cluster.Followers(n) {
			require.NoError(c.t, m.Kill())
		}
		note = ", all others killed"
	}
	if note == "" {
		c.progress(c.rng.IntN(60))
	}
	harness.Start(c.t, c.cluster)
	if wiped {
		c.awaitVote(n)
	}
	return fmt.Sprintf("%s died at %s@%d%s", n.Name, name, nth, note)
}

// prepare stops n in a state from which it can reach the point, and tells whether that is one without data.
func (c *crasher) prepare(name fault.Name, n *local.Server) (wiped bool) {
	c.t.Helper()
	wiped = needsWipe(name, c.rng)
	if name == fault.RestoreHalf && !wiped {
		c.awaitSnapshots(n, 1, 1)
	}
	if wiped {
		for _, m := range c.cluster.Followers(n) {
			c.awaitSnapshots(m, 2, logLost)
		}
	}
	if c.rng.IntN(4) == 0 {
		require.NoError(c.t, n.Stop())
	} else {
		require.NoError(c.t, n.Kill())
	}
	if wiped {
		// What is acknowledged now is on both others, and all that came before with it: the copies that are about to
		// go were not needed for a majority.
		c.progress(5)
		require.NoError(c.t, os.RemoveAll(n.Dir))
		require.NoError(c.t, os.MkdirAll(n.Dir, 0o755))
	}
	return wiped
}

// awaitVote waits until a node that was wiped has its vote again: with another one dead the cluster would have no leader
// before, and rightly so.
func (c *crasher) awaitVote(n *local.Server) {
	c.t.Helper()
	cl := n.Client()
	defer cl.Close()
	harness.Await(c.t, time.Minute, "the vote of "+n.Name, func(ctx context.Context) error {
		m, err := cl.Metrics(ctx)
		if err == nil && m.Sum("deucalion_cluster_recovering") != 0 {
			err = errors.New("it is recovering")
		}
		return err
	})
}

// awaitSnapshots waits until n has so many Raft snapshots of a log index of at least from.
func (c *crasher) awaitSnapshots(n *local.Server, want, from int) {
	c.t.Helper()
	harness.Await(c.t, time.Minute, fmt.Sprintf("%d Raft snapshots of %s", want, n.Name), func(context.Context) error {
		names, err := filepath.Glob(filepath.Join(n.Dir, "snapshots-raft", "*"))
		have := 0
		for _, name := range names {
			var term, index, msec int
			name = filepath.Base(name)
			if _, err := fmt.Sscanf(name, "%d-%d-%d", &term, &index, &msec); err == nil && !strings.Contains(name, ".") && index >= from {
				have++
			}
		}
		if err == nil && have < want {
			err = fmt.Errorf("%w: %d", errNoSnapshot, have)
		}
		return err
	})
}

func (c *crasher) logSize(n *local.Server) int {
	text, err := os.ReadFile(n.Log)
	require.NoError(c.t, err)
	return len(text)
}

// awaitDeath waits until the point has killed n. The other nodes go on all the time.
func (c *crasher) awaitDeath(n *local.Server, name fault.Name, mark int) {
	c.t.Helper()
	harness.Await(c.t, reachTimeout, fmt.Sprintf("the death of %s at %s", n.Name, name), func(context.Context) error {
		if n.Running() {
			return errAlive
		}
		return nil
	})
	text, err := os.ReadFile(n.Log)
	require.NoError(c.t, err)
	require.True(c.t, bytes.Contains(text[mark:], fmt.Appendf(nil, "fault point %s reached\n", name)),
		"%s died, and not at %s: %s", n.Name, name, text[max(mark, len(text)-3000):])
}

// progress waits until n more writes are acknowledged.
func (c *crasher) progress(n int) {
	c.t.Helper()
	want := c.ledger.Acks() + n
	harness.Await(c.t, time.Minute, fmt.Sprintf("%d acknowledged writes", want), func(context.Context) error {
		if acks := c.ledger.Acks(); acks < want {
			return fmt.Errorf("%w: %d", errNoProgress, acks)
		}
		return nil
	})
}

// check reads all data of every node and holds them against the books and against each other.
func (c *crasher) check() {
	c.t.Helper()
	c.writers.Pause()
	defer c.writers.Resume()
	c.victims.Pause()
	defer c.victims.Resume()
	c.compare()
}

// compare also holds against each other what no read of samples shows.
func (c *crasher) compare() {
	c.t.Helper()
	require.Empty(c.t, c.ledger.Faults(), "answers other than 2xx, 503 and broken connections")
	first := ""
	for _, n := range c.cluster.Nodes {
		data := harness.ReadAll(c.t, n)
		mine, rest := split(data)
		require.Empty(c.t, c.ledger.Check(rest, 10), "data of %s", n.Name)
		require.Empty(c.t, client.Diff(c.victims.want, mine, 10), "victims on %s", n.Name)
		if first == "" {
			first = data.Digest()
		}
		require.Equal(c.t, first, data.Digest(), "digests of %s and %s", c.cluster.Nodes[0].Name, n.Name)
	}
	require.Empty(c.t, c.ledger.CheckExtras(harness.Same(c.t, c.cluster)))
}

// newEpoch deletes everything, finds nothing, and begins with new books.
func (c *crasher) newEpoch(seed uint64) {
	c.t.Helper()
	c.writers.Finish()
	c.victims.Pause()
	defer c.victims.Resume()
	c.compare()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	c.victims.forget(ctx)
	c.victims.eraseAll(ctx, fmt.Sprintf(`{run="crash-%d"}`, c.epochs))
	for _, n := range c.cluster.Nodes {
		require.Empty(c.t, harness.ReadAll(c.t, n), "%s after everything was deleted", n.Name)
	}
	c.past += c.ledger.AckedSamples()
	c.load(seed)
}
