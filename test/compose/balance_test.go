// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compose_test

import (
	"context"
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/internal/freeport"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// balancer is HAProxy with the configuration of deploy/compose.
type balancer struct {
	*local.Server
	monitoring string // address of /stats and /metrics
}

// startBalancer puts the HAProxy of the machine before three nodes.
func startBalancer(t *testing.T, nodes []*local.Server) *balancer {
	t.Helper()
	return startBalancerWith(t, filepath.Join(dir, "haproxy.cfg"), nodes)
}

// startBalancerWith does so with another configuration.
func startBalancerWith(t *testing.T, file string, nodes []*local.Server) *balancer {
	t.Helper()
	bin, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("no haproxy here; test/scripts/debian-haproxy.sh installs one")
	}
	var ports freeport.Ports
	port, err := ports.Take()
	require.NoError(t, err)
	b := &balancer{monitoring: fmt.Sprintf("127.0.0.1:%d", port)}
	work := t.TempDir()
	b.Server, err = local.NewProgram(bin, work, &ports, func(string) []string {
		return []string{"-db", "-f", file}
	})
	require.NoError(t, err)
	env := []string{"DEUCALION_LISTEN=" + b.Addr, "DEUCALION_MONITORING=" + b.monitoring}
	for i, n := range nodes {
		env = append(env, fmt.Sprintf("DEUCALION_NODE%d=%s", i+1, n.Addr))
	}
	check := exec.CommandContext(t.Context(), bin, "-c", "-f", file)
	check.Env = append(os.Environ(), env...)
	out, err := check.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "WARNING")
	t.Cleanup(func() {
		if err := b.Kill(); err != nil {
			t.Error(err)
		}
		ports.Release()
		if log, err := os.ReadFile(b.Log); err == nil && t.Failed() {
			t.Logf("end of the log of haproxy:\n%s", log[max(0, len(log)-4000):])
		}
	})
	require.NoError(t, b.Start(env...))
	harness.WaitReady(t, b.Server)
	return b
}

// status is what the balancer says of a node: UP, DOWN or on the way from one to the other.
func (b *balancer) status(ctx context.Context, node int) (string, error) {
	cl := client.New("http://" + b.monitoring)
	defer cl.Close()
	resp, err := cl.Get(ctx, "/stats;csv", nil)
	if err != nil {
		return "", err
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(string(resp.Body), "# "))).ReadAll()
	if err != nil {
		return "", err
	}
	column := slices.Index(rows[0], "status")
	for _, row := range rows[1:] {
		if row[0] == "nodes" && row[1] == fmt.Sprintf("node%d", node+1) {
			return row[column], nil
		}
	}
	return "", fmt.Errorf("no node%d in %s", node+1, resp.Body)
}

func (b *balancer) await(t *testing.T, node int, want string) {
	t.Helper()
	harness.Await(t, time.Minute, fmt.Sprintf("node%d to be %s", node+1, want), func(ctx context.Context) error {
		got, err := b.status(ctx, node)
		if err == nil && got != want {
			err = fmt.Errorf("it is %s", got)
		}
		return err
	})
}

// fault is what happens to a node under load.
type fault struct {
	name       string
	leader     bool // it happens to the leader, else to a follower
	fail, mend func(*local.Server) error
}

// outBound is how long a node that is in trouble may be in the balance. On a machine that has no time for the balancer or the
// nodes it is longer, so that the best of outTries counts.
const (
	outBound = 2 * time.Second
	outTries = 3
)

// suffer lets a node fail and come back while clients of the balancer see no error. The node is left out in time, and
// back when it is ready again.
func (b *balancer) suffer(t *testing.T, c *local.Cluster, f fault, written *atomic.Int64) {
	t.Helper()
	out := b.fail(t, c, f, written)
	for try := 1; out > outBound && try < outTries; try++ {
		out = min(out, b.fail(t, c, f, written))
	}
	require.LessOrEqual(t, out, outBound)
}

// fail does what suffer does once and tells how long the node was not left out.
func (b *balancer) fail(t *testing.T, c *local.Cluster, f fault, written *atomic.Int64) (out time.Duration) {
	t.Helper()
	leader := harness.Leader(t, c)
	victim := leader
	if !f.leader {
		victim = c.Followers(leader)[0]
	}
	i := slices.Index(c.Nodes, victim)
	w := startWork(t, b.Server, written)
	w.await(t, 20)
	var failing sync.WaitGroup
	defer failing.Wait()
	var err error
	begin := time.Now()
	failing.Go(func() { err = f.fail(victim) }) // a stop may take long, and the node is to be left out at its begin
	b.await(t, i, "DOWN")
	out = time.Since(begin)
	failing.Wait()
	require.NoError(t, err)
	t.Logf("left out after %s", out.Round(time.Millisecond))
	w.await(t, 20)
	require.NoError(t, f.mend(victim))
	b.await(t, i, "UP")
	w.await(t, 20)
	w.stop(t)
	t.Logf("slowest call of a client: %s", time.Duration(w.slowest.Load()).Round(time.Millisecond))
	return out
}

// TestBalancer lets one node after the other fail, under load.
func TestBalancer(t *testing.T) {
	c := harness.New(t)
	b := startBalancer(t, c.Nodes)
	s := startSender(t, b)
	var written atomic.Int64
	for i := range c.Nodes {
		b.await(t, i, "UP")
	}
	start := func(n *local.Server) error { return n.Start() }
	for _, f := range []fault{
		{name: "follower killed", fail: (*local.Server).Kill, mend: start},
		{name: "leader killed", leader: true, fail: (*local.Server).Kill, mend: start},
		{name: "follower paused", fail: (*local.Server).Pause, mend: (*local.Server).Resume},
		{name: "leader paused", leader: true, fail: (*local.Server).Pause, mend: (*local.Server).Resume},
		{name: "leader stopped", leader: true, fail: (*local.Server).Stop, mend: start},
	} {
		t.Run(f.name, func(t *testing.T) { b.suffer(t, c, f, &written) })
	}
	s.finish(t, c)
	requireWritten(t, c, written.Load())
	cl := client.New("http://" + b.monitoring)
	defer cl.Close()
	resp, err := cl.Get(t.Context(), "/metrics", nil)
	require.NoError(t, err)
	require.Contains(t, string(resp.Body), `haproxy_server_status{proxy="nodes",server="node1",state="UP"} 1`)
}
