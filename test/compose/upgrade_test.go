// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compose_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
	"github.com/deucaliondb/deucalion/test/upgrade"
)

// previousEnv names a binary of an earlier version.
const previousEnv = "DEUCALION_PREVIOUS_BIN"

// TestRollingUpgrade replaces the binary of one node after the other, under load: clients of the balancer see no error.
// Without a binary of an earlier version, the data directory that one has left behind stands in for it.
func TestRollingUpgrade(t *testing.T) {
	// The nodes are started through a link, as by a service whose package is upgraded.
	link := filepath.Join(t.TempDir(), "deucalion")
	previous, real := os.Getenv(previousEnv), true
	if previous == "" {
		previous, real = os.Getenv("DEUCALION_BIN"), false
	}
	require.NoError(t, os.Symlink(previous, link))
	c := harness.Prepare(t, local.ClusterOptions{Bin: link, Flags: []string{"--storage.tsdb.retention.time=10y"}})
	var release string
	if !real {
		all, err := upgrade.Releases("../upgrade/testdata")
		require.NoError(t, err)
		release = all[0] // of the lowest level, which is to be raised
		require.NoError(t, upgrade.Unpack(release, c.Nodes[0].Dir))
	}
	harness.Start(t, c)
	awaitMembers(t, c)
	t.Logf("the nodes know level %d of the log format", knownLevels(t, c))
	if !real {
		requireGolden(t, c, release)
	}

	b := startBalancer(t, c.Nodes)
	for i := range c.Nodes {
		b.await(t, i, "UP")
	}
	s := startSender(t, b)
	var written atomic.Int64
	w := startWork(t, b.Server, &written)
	w.await(t, 100)
	require.NoError(t, os.Remove(link))
	require.NoError(t, os.Symlink(os.Getenv("DEUCALION_BIN"), link))
	for i, n := range c.Nodes {
		begin := time.Now()
		require.NoError(t, n.Stop())
		w.await(t, 20)
		require.NoError(t, n.Start())
		harness.WaitReady(t, n)
		b.await(t, i, "UP")
		t.Logf("%s upgraded in %s", n.Name, time.Since(begin).Round(time.Millisecond))
		w.await(t, 50)
	}
	harness.Await(t, 2*time.Minute, "the level of the log format", func(context.Context) error {
		for _, l := range levels(t, c) {
			if l != fsm.Level {
				return fmt.Errorf("a node is at %d, this version knows %d", l, fsm.Level)
			}
		}
		return nil
	})
	w.await(t, 50)
	w.stop(t)
	t.Logf("%d writes, slowest call of a client: %s", written.Load(), time.Duration(w.slowest.Load()).Round(time.Millisecond))
	s.finish(t, c)
	requireWritten(t, c, written.Load())
	requireDigest(t, c)
	if !real {
		requireGolden(t, c, release)
	}
}

// awaitMembers waits until all nodes vote.
func awaitMembers(t *testing.T, c *local.Cluster) {
	t.Helper()
	cl := c.Nodes[0].Client()
	defer cl.Close()
	harness.Await(t, time.Minute, "all nodes to vote", func(ctx context.Context) error {
		m, err := cl.Metrics(ctx)
		if err == nil && m.Sum("deucalion_raft_voters") != float64(len(c.Nodes)) {
			err = fmt.Errorf("%v voters", m.Sum("deucalion_raft_voters"))
		}
		return err
	})
}

// levels are what each node says of the level that the cluster has reached.
func levels(t *testing.T, c *local.Cluster) (out []uint32) {
	t.Helper()
	for _, n := range c.Nodes {
		cl := n.Client()
		defer cl.Close()
		var status struct {
			Level uint32 `json:"level"`
		}
		require.NoError(t, cl.Data(t.Context(), "/api/v1/cluster", nil, &status))
		out = append(out, status.Level)
	}
	return out
}

// knownLevels are what each node knows.
func knownLevels(t *testing.T, c *local.Cluster) (out []uint32) {
	t.Helper()
	cl := c.Nodes[0].Client()
	defer cl.Close()
	var status struct {
		Nodes []struct {
			Level uint32 `json:"level"`
		} `json:"nodes"`
	}
	require.NoError(t, cl.Data(t.Context(), "/api/v1/cluster", nil, &status))
	for _, n := range status.Nodes {
		out = append(out, n.Level)
	}
	return out
}

func requireDigest(t *testing.T, c *local.Cluster) {
	t.Helper()
	cl := c.Nodes[0].Client()
	defer cl.Close()
	d, err := cl.Digest(t.Context())
	require.NoError(t, err)
	require.Equal(t, "equal", d.Result, "%+v", d)
	require.Len(t, d.Nodes, len(c.Nodes))
}

// requireGolden insists that every node answers as the node of the release did, whatever else it holds.
func requireGolden(t *testing.T, c *local.Cluster, release string) {
	t.Helper()
	want, err := upgrade.Recorded(release)
	require.NoError(t, err)
	var described map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(want.Metadata, &described))
	require.NotEmpty(t, described)
	for _, n := range c.Nodes {
		got := client.Data{}
		for key, samples := range harness.ReadAll(t, n) {
			if _, ok := want.Data[key]; ok {
				got[key] = samples
			}
		}
		require.Empty(t, client.Diff(want.Data, got, 10), n.Name)
		cl := n.Client().At(client.Linearizable)
		defer cl.Close()
		var metadata map[string]json.RawMessage
		require.NoError(t, cl.Data(t.Context(), "/api/v1/metadata", nil, &metadata))
		for name := range described {
			require.JSONEq(t, string(described[name]), string(metadata[name]), "%s of %s", name, n.Name)
		}
		var exemplars json.RawMessage
		require.NoError(t, cl.Data(t.Context(), "/api/v1/query_exemplars", url.Values{
			"query": {`{__name__=~".+"}`}, "start": {"0"}, "end": {client.Seconds(time.Now().UnixMilli())},
		}, &exemplars))
		require.JSONEq(t, string(want.Exemplars), string(exemplars), n.Name)
	}
}
