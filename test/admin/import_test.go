// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/admin/fill"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// TestImport imports blocks that promtool made through a follower, while writes go on and the other follower is
// killed. All nodes come to hold the same: the killed one when it is back, and the one that was given the blocks after
// it has lost its disk. Where there was a sample, that one has stayed.
func TestImport(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: test/scripts/debian-prometheus.sh")
	}
	c := harness.New(t)
	leader := harness.Leader(t, c)
	rest := c.Followers(leader)
	given, killed := rest[0], rest[1]
	cl := leader.Client()
	defer cl.Close()

	start := time.Now().Add(-50 * time.Minute).Truncate(time.Second)
	model := client.Data{}
	live := fill.Grid{Job: "live", Series: 10, Start: start.UnixMilli(), Step: 10_000, Count: 100}.Make(1)
	require.NoError(t, cl.Write(t.Context(), live))
	old := fill.Grid{Job: "old", Series: 20, Start: start.Add(-30 * time.Hour).UnixMilli(), Step: 60_000, Count: 600}.Make(2)
	// The same series and times with other values, and as many in between.
	planted := fill.Grid{Job: "live", Series: 10, Start: start.UnixMilli(), Step: 5_000, Count: 200}.Make(3)
	dir := createBlocks(t, promtool, append(old, planted...))
	fill.Merge(model, old)
	fill.Merge(model, planted)

	during := startWrites(t, leader)
	require.NoError(t, killed.Kill())
	var out string
	harness.Await(t, 90*time.Second, "the import", func(ctx context.Context) error {
		b, err := exec.CommandContext(ctx, os.Getenv("DEUCALION_BIN"), "import", "--url=http://"+given.Addr, dir).CombinedOutput()
		if out = string(b); err != nil {
			return fmt.Errorf("%w: %s", err, out) // gossip may take the killed node for alive
		}
		return nil
	})
	require.Regexp(t, `imported at log index \d+: 14000 samples, of them 1000 were there already`, out)
	written := during()
	fill.Merge(model, written)
	fill.Merge(model, live) // the first write wins
	harness.Start(t, c)
	requireData(t, c, client.Linearizable, model, "imported, and the killed node is back")

	require.NoError(t, given.Kill())
	es, err := os.ReadDir(given.Dir)
	require.NoError(t, err)
	for _, e := range es {
		require.NoError(t, os.RemoveAll(filepath.Join(given.Dir, e.Name())))
	}
	harness.Start(t, c)
	requireData(t, c, client.Linearizable, model, "the node that was given the blocks has lost its disk")

	again := planted[:1]
	again[0].Samples = again[0].Samples[151:152] // one that came with the import
	resp, err := cl.WriteBody(t.Context(), encode(t, again))
	require.NoError(t, err)
	require.Equal(t, 204, resp.Status, "the same again is no error: %s", resp.Body)
	again[0].Samples[0].Value = 7
	resp, err = cl.WriteBody(t.Context(), encode(t, again))
	require.NoError(t, err)
	require.Equal(t, 400, resp.Status, "another value for an imported sample: %s", resp.Body)

	restartAll(t, c)
	requireData(t, c, client.Linearizable, model, "restarted")
	d, err := cl.Digest(t.Context())
	require.NoError(t, err)
	require.Equal(t, "equal", d.Result)
	requireSnapshots(t, c, cl, model)
}

// requireSnapshots insists that a stock Prometheus finds the same in a user snapshot of each node.
func requireSnapshots(t *testing.T, c *local.Cluster, cl *client.Client, want client.Data) {
	t.Helper()
	name, err := cl.Snapshot(t.Context())
	require.NoError(t, err)
	for _, n := range c.Nodes {
		require.Empty(t, client.Diff(want, openSnapshot(t, filepath.Join(n.Dir, "snapshots", name)), 10), n.Name)
	}
}

func encode(t *testing.T, series []prompb.TimeSeries) []byte {
	t.Helper()
	b, err := client.Encode(series)
	require.NoError(t, err)
	return b
}

// startWrites writes a sample now and then; the function that it returns ends that and tells what was written.
func startWrites(t *testing.T, n *local.Server) (stop func() []prompb.TimeSeries) {
	ctx, cancel := context.WithCancel(t.Context())
	cl := n.Client()
	var wg sync.WaitGroup
	var all []prompb.TimeSeries
	var failed error
	wg.Go(func() {
		for i := 0; ctx.Err() == nil && failed == nil; i++ {
			grid := fill.Grid{Job: "during", Series: 1, Start: time.Now().UnixMilli(), Step: 1, Count: 1}.Make(uint64(i))
			failed = cl.Write(t.Context(), grid)
			all = append(all, grid...)
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return func() []prompb.TimeSeries {
		cancel()
		wg.Wait()
		cl.Close()
		require.NoError(t, failed, "a write during the import")
		return all
	}
}

// createBlocks has promtool make blocks of the series.
func createBlocks(t *testing.T, promtool string, series []prompb.TimeSeries) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("# TYPE grid gauge\n")
	for _, ts := range series {
		b.WriteString("grid{")
		for i, l := range ts.Labels[1:] {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "%s=%q", l.Name, l.Value)
		}
		b.WriteByte('}')
		prefix := b.String()[strings.LastIndexByte(b.String(), '\n')+1:]
		for i, s := range ts.Samples {
			if i > 0 {
				b.WriteString(prefix)
			}
			fmt.Fprintf(&b, " %s %s\n", strconv.FormatFloat(s.Value, 'g', -1, 64), client.Seconds(s.Timestamp))
		}
	}
	b.WriteString("# EOF\n")
	file, dir := filepath.Join(t.TempDir(), "metrics.om"), filepath.Join(t.TempDir(), "blocks")
	require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
	out, err := exec.CommandContext(t.Context(), promtool, "tsdb", "create-blocks-from", "openmetrics", file, dir).CombinedOutput()
	require.NoError(t, err, string(out))
	return dir
}
