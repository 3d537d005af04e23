// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package catchup_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	series   = 20
	step     = 15 * time.Second
	partSpan = 2 * time.Hour
	// Small requests: what is kept of the log is counted in entries too, 256 at least.
	perRequest = 4

	largest = 27 // parts of the largest blocks that are merged here
	before  = 36 // parts of two hours written at most until the node that will be behind has a snapshot of a largest block
	maxMore = 16 // parts written at most while that node is down

	ready = 90 * time.Second
	// A node looks once a second whether a snapshot is due.
	snapshotTime = 2 * time.Second
)

var errNotYet = errors.New("not yet")

// load writes part after part of two hours of random values.
type load struct {
	t     *testing.T
	to    *client.Client
	start int64 // ms
	part  int
	rng   *rand.Rand
}

func (l *load) write() {
	l.t.Helper()
	perPart := int(partSpan / step)
	for i := 0; i < perPart; i += perRequest {
		ts := make([]prompb.TimeSeries, series)
		for s := range ts {
			ts[s].Labels = client.Labels("__name__", "load", "s", fmt.Sprint(s))
			for j := range perRequest {
				ts[s].Samples = append(ts[s].Samples, prompb.Sample{
					Timestamp: l.start + int64(l.part*perPart+i+j)*step.Milliseconds(), Value: l.rng.Float64(),
				})
			}
		}
		require.NoError(l.t, l.to.Write(l.t.Context(), ts))
	}
	l.part++
}

// until writes until done, up to part most. A part makes a snapshot due, and each is waited for, for snapshots take
// their time however fast the writes are.
func (l *load) until(most int, what string, done func() bool) {
	l.t.Helper()
	for !done() {
		require.Less(l.t, l.part, most, what)
		l.write()
		for deadline := time.Now().Add(snapshotTime); !done() && time.Now().Before(deadline); {
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// start is at a boundary of the largest blocks: the parts that a node misses must not be merged into a block with all
// that it has, on which depends how much it has to fetch.
func start() int64 {
	const span = largest * int64(partSpan/time.Millisecond)
	return time.Now().Add(-(before+maxMore+2)*partSpan).UnixMilli() / span * span
}

// metric asks n.
func metric(t *testing.T, n *local.Server, name string) float64 {
	t.Helper()
	c := n.Client()
	defer c.Close()
	m, err := c.Metrics(t.Context())
	require.NoError(t, err)
	return m.Sum(name)
}

// newestSnapshot is what n offers as the leader, and starts from.
func newestSnapshot(t *testing.T, n *local.Server) fsm.Manifest {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(n.Dir, "snapshots-raft", "*-*-*", "data"))
	require.NoError(t, err)
	var newest fsm.Manifest
	for _, dir := range dirs {
		if m, err := fsm.ReadManifest(dir); err == nil && m.Index > newest.Index {
			newest = m
		}
	}
	return newest
}

// equal reads all data of every node.
func equal(t *testing.T, c *local.Cluster) {
	t.Helper()
	digests := map[string]string{}
	samples := 0
	for _, n := range c.Nodes {
		cl := n.Client().At(client.Linearizable)
		data, err := cl.ReadAll(t.Context())
		cl.Close()
		require.NoError(t, err, n.Name)
		digests[n.Name], samples = data.Digest(), data.Len()
	}
	for _, n := range c.Nodes {
		require.Equal(t, digests[c.Nodes[0].Name], digests[n.Name], "digests: %v", digests)
	}
	t.Logf("all nodes have the same %d samples", samples)
}

func TestCatchUp(t *testing.T) {
	c := harness.New(t, "--raft.snapshot-log-bytes=64KB", "--raft.trailing-log-bytes=1KB", "--raft.log-segment-bytes=64KB",
		"--cluster.snapshot-max-rate=500KB")
	leader := harness.Leader(t, c)
	behind := c.Followers(leader)[0]
	to := leader.Client()
	defer to.Close()
	l := &load{t: t, to: to, rng: rand.New(rand.NewPCG(1, 2)), start: start()}
	// A node keeps a block if it has all that lies before the freeze of its newest part, which comes within the next part.
	for range largest + 1 {
		l.write()
	}
	whole := uint64(metric(t, leader, "deucalion_raft_applied_index"))
	l.until(before, "a snapshot of the node that will be behind", func() bool { return newestSnapshot(t, behind).Index >= whole })
	had := l.part
	index := metric(t, behind, "deucalion_raft_applied_index")
	require.NoError(t, behind.Kill())

	snapshots := metric(t, leader, "deucalion_raft_snapshots_total")
	l.until(had+maxMore, "a log that begins later", func() bool {
		return metric(t, leader, "deucalion_raft_snapshots_total") >= snapshots+3 &&
			metric(t, leader, "deucalion_raft_applied_index") > index+450
	})
	missed := l.part - had
	require.NoError(t, behind.Start())
	l.write() // the others go on
	harness.WaitReady(t, behind)
	equal(t, c)
	total := newestSnapshot(t, leader).Bytes()
	fetched, kept := metric(t, behind, "deucalion_raft_catchup_fetched_bytes_total"), metric(t, behind, "deucalion_raft_catchup_kept_bytes_total")
	t.Logf("missed %d of %d parts; of %d bytes %.0f were fetched and %.0f kept", missed, l.part, total, fetched, kept)
	require.Positive(t, metric(t, behind, "deucalion_raft_snapshot_installs_total"), "it came by snapshot")
	require.Positive(t, fetched)
	require.Less(t, fetched, float64(total)/2)

	wiped(t, c, behind, leader)
}

// wiped takes all data from a node, and kills it once more while it is getting them back.
func wiped(t *testing.T, c *local.Cluster, n, leader *local.Server) {
	t.Helper()
	require.NoError(t, n.Kill())
	require.NoError(t, os.RemoveAll(n.Dir))
	require.NoError(t, os.Mkdir(n.Dir, 0o755))
	require.NoError(t, n.Start())
	var first float64
	harness.Await(t, ready, "a part of the snapshot", func(ctx context.Context) error {
		cl := n.Client()
		defer cl.Close()
		m, err := cl.Metrics(ctx)
		if err != nil {
			return err
		}
		first = m.Sum("deucalion_raft_catchup_fetched_bytes_total")
		if first < 500_000 {
			return fmt.Errorf("%w: %.0f bytes", errNotYet, first)
		}
		return nil
	})
	total := newestSnapshot(t, leader).Bytes()
	require.NoError(t, n.Kill())
	require.NoError(t, n.Start())
	harness.WaitReady(t, n)
	equal(t, c)
	second := metric(t, n, "deucalion_raft_catchup_fetched_bytes_total")
	t.Logf("wiped: of %d bytes %.0f or more came before a kill -9, %.0f after it", total, first, second)
	require.Positive(t, metric(t, n, "deucalion_raft_snapshot_installs_total"), "it came by snapshot")
	require.LessOrEqual(t, second, float64(total)-first, "it goes on where it was")
}
