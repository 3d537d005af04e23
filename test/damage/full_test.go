// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package damage_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/ledger"
	"github.com/deucaliondb/deucalion/test/local"
)

const mib = 1 << 20

// smallDisks lays out a cluster whose nodes have 400 MiB each, of which a segment of the log takes 64. They leave two
// segments alone, whatever less they are told.
func smallDisks(t *testing.T) *local.Cluster {
	t.Helper()
	dir := t.TempDir()
	var mounted []string
	t.Cleanup(func() { // after the cluster's own
		for _, d := range mounted {
			if err := syscall.Unmount(d, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	})
	c := harness.Prepare(t, local.ClusterOptions{Dir: dir, Flags: []string{"--storage.min-free=64MiB"}})
	for _, n := range c.Nodes {
		if err := syscall.Mount("tmpfs", n.Dir, "tmpfs", 0, "size=400m"); err != nil {
			t.Skipf("no file system of its own for each node: mount: %v", err)
		}
		mounted = append(mounted, n.Dir)
	}
	harness.Start(t, c)
	return c
}

// fill leaves so many bytes free on n's disk, by the length of a file that is nobody's.
func fill(t *testing.T, n *local.Server, leave int64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(n.Dir, "filler"), os.O_CREATE|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	defer f.Close()
	at, err := f.Seek(0, 2)
	require.NoError(t, err)
	block := make([]byte, 64<<10)
	for room(t, n) > leave {
		k, err := f.WriteAt(block[:min(int64(len(block)), room(t, n)-leave)], at)
		at += int64(k)
		if err != nil { // others write, too
			require.ErrorIs(t, err, syscall.ENOSPC)
			return
		}
	}
}

func room(t *testing.T, n *local.Server) int64 {
	var s syscall.Statfs_t
	require.NoError(t, syscall.Statfs(n.Dir, &s))
	return int64(s.Bavail) * s.Bsize
}

func empty(t *testing.T, n *local.Server) {
	t.Helper()
	require.NoError(t, os.Remove(filepath.Join(n.Dir, "filler")))
}

const diskLow = "deucalion_storage_disk_low"

// TestOneFullDisk fills the disk of a follower, then of the leader, to the last byte under load: the others go on, the
// node answers local reads, and is back by itself when there is room.
func TestOneFullDisk(t *testing.T) {
	c := smallDisks(t)
	l := ledger.New("full")
	w := load(t, c, l)
	progress(t, l, 50)
	for _, leads := range []bool{false, true} {
		n := harness.Leader(t, c)
		if !leads {
			n = c.Followers(n)[0]
		}
		fill(t, n, 100*mib)
		harness.Await(t, time.Minute, "a disk that is low", func(ctx context.Context) error { // or worse: others write, too
			level, err := sum(ctx, n, diskLow)
			if err == nil && level < 1 {
				err = errNotYet
			}
			return err
		})
		harness.Await(t, 30*time.Second, "a leader with room", func(ctx context.Context) error {
			leader, err := c.Leader(ctx)
			if err == nil && leader == n {
				err = errNotYet
			}
			return err
		})
		progress(t, l, 50)
		fill(t, n, 0)
		awaitMetric(t, n, diskLow, 2)
		progress(t, l, 200)
		require.Error(t, ready(t, n))
		_, err := read(t.Context(), n, client.Local)
		require.NoError(t, err)
		query(t, n)
		require.True(t, running(c))
		empty(t, n)
		harness.WaitReady(t, n)
		progress(t, l, 50)
	}
	w.Finish()
	check(t, c, l)
	t.Log(l.Summary())
}

// doomed series are deleted one by one; so many deletes that each node makes a Raft snapshot.
const doomed = 100

// TestAllDisksFull: nothing is taken and nothing lost; local reads go on, and below the first mark deletes, a cleanup and
// Raft snapshots, too; then all go on.
func TestAllDisksFull(t *testing.T) {
	c := smallDisks(t)
	l := ledger.New("full")
	w := load(t, c, l)
	progress(t, l, 50)
	writeDoomed(t, c)
	for _, n := range c.Nodes {
		fill(t, n, 100*mib)
	}
	for _, n := range c.Nodes {
		awaitMetric(t, n, diskLow, 1)
	}
	w.Pause()
	for _, n := range c.Nodes {
		refused(t, n)
		data, err := read(t.Context(), n, client.Local)
		require.NoError(t, err)
		require.NotZero(t, data.Len())
	}
	cl := c.Nodes[0].Client()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	last := make([]float64, len(c.Nodes))
	for i, n := range c.Nodes {
		var err error
		last[i], err = sum(ctx, n, "deucalion_raft_last_log_index")
		require.NoError(t, err)
	}
	for i := range doomed {
		require.NoError(t, cl.Delete(ctx, url.Values{"match[]": {fmt.Sprintf(`doomed{n="%d"}`, i)}}), "delete %d", i)
	}
	for i, n := range c.Nodes {
		requireDoomed(t, n, 0)
		harness.Await(t, 60*time.Second, "a Raft snapshot of "+n.Name, func(context.Context) error {
			if index := newestSnapshot(t, n); float64(index) <= last[i] {
				return fmt.Errorf("%w: %d", errNotYet, index)
			}
			return nil
		})
	}
	require.NoError(t, cl.Clean(ctx))
	_, err := cl.Snapshot(ctx)
	require.ErrorContains(t, err, "nearly full")
	for _, n := range c.Nodes {
		awaitMetric(t, n, diskLow, 1) // all of this was below the first mark
	}

	for _, n := range c.Nodes {
		fill(t, n, 0)
	}
	for _, n := range c.Nodes {
		awaitMetric(t, n, diskLow, 2)
	}
	for _, n := range c.Nodes {
		refused(t, n)
		_, err := read(t.Context(), n, client.Local)
		require.NoError(t, err)
	}
	require.ErrorContains(t, cl.Delete(ctx, url.Values{"match[]": {`{run="full"}`}}), "disk is full")
	require.True(t, running(c))
	for _, n := range c.Nodes {
		empty(t, n)
	}
	for _, n := range c.Nodes {
		harness.WaitReady(t, n)
	}
	w.Resume()
	progress(t, l, 100)
	w.Finish()
	check(t, c, l)
	t.Log(l.Summary())
}

// writeDoomed writes the series that are to be deleted, and waits until all nodes have them.
func writeDoomed(t *testing.T, c *local.Cluster) {
	t.Helper()
	now := time.Now().UnixMilli()
	var series []prompb.TimeSeries
	for i := range doomed {
		series = append(series, prompb.TimeSeries{
			Labels:  client.Labels("__name__", "doomed", "n", fmt.Sprint(i)),
			Samples: []prompb.Sample{{Value: 1, Timestamp: now}, {Value: 2, Timestamp: now + 1}},
		})
	}
	cl := c.Nodes[0].Client()
	defer cl.Close()
	require.NoError(t, cl.Write(t.Context(), series))
	for _, n := range c.Nodes {
		requireDoomed(t, n, doomed)
	}
}

// requireDoomed waits until n has so many of them.
func requireDoomed(t *testing.T, n *local.Server, want int) {
	t.Helper()
	harness.Await(t, 30*time.Second, fmt.Sprintf("%d doomed series on %s", want, n.Name), func(ctx context.Context) error {
		data, err := read(ctx, n, client.Local)
		if err != nil {
			return err
		}
		have := 0
		for key := range data {
			if strings.Contains(key, `"doomed"`) {
				have++
			}
		}
		if have != want {
			return fmt.Errorf("%w: %d", errNotYet, have)
		}
		return nil
	})
}

// query asks n, as often as there are places in its file of active queries.
func query(t *testing.T, n *local.Server) {
	t.Helper()
	cl := n.Client().At(client.Local)
	defer cl.Close()
	for range 20 {
		resp, err := cl.Get(t.Context(), "/api/v1/query", url.Values{"query": {`count({run="full"})`}})
		require.NoError(t, err)
		require.NoError(t, resp.Err())
	}
}

func ready(t *testing.T, n *local.Server) error {
	t.Helper()
	cl := n.Client()
	defer cl.Close()
	resp, err := cl.Do(t.Context(), http.MethodGet, "/-/ready", nil, nil)
	require.NoError(t, err)
	return resp.Err()
}

// refused insists that a write gets 503 with Retry-After, soon.
func refused(t *testing.T, n *local.Server) {
	t.Helper()
	cl := n.Client()
	defer cl.Close()
	body, err := client.Encode([]prompb.TimeSeries{{
		Labels:  client.Labels("__name__", "too_much"),
		Samples: []prompb.Sample{{Value: 1, Timestamp: time.Now().UnixMilli()}},
	}})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	resp, err := cl.WriteBody(ctx, body)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, resp.Status, "%s: %s", n.Name, resp.Body)
	require.NotEmpty(t, resp.Header.Get("Retry-After"))
	require.Contains(t, string(resp.Body), "disk is full")
}
