// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compose_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
	"github.com/deucaliondb/deucalion/test/netns"
)

// hosts are three machines with a node each; the balancer and the clients are on a fourth.
type hosts struct {
	*netns.Net
	cluster *local.Cluster
}

func startHosts(t *testing.T, number int, o local.ClusterOptions) *hosts {
	t.Helper()
	if err := netns.Check(); err != nil {
		t.Skip(err)
	}
	net, err := netns.New(number, 3)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, net.Close()) })
	for _, h := range net.Hosts {
		o.Hosts = append(o.Hosts, local.Host{Addr: h.Addr, Command: h.Command()})
	}
	h := &hosts{Net: net, cluster: harness.Prepare(t, o)}
	harness.Start(t, h.cluster)
	return h
}

func (h *hosts) of(n *local.Server) *netns.Host { return h.Hosts[slices.Index(h.cluster.Nodes, n)] }

func (h *hosts) unplug(n *local.Server) error { return h.of(n).Unplug() }

func (h *hosts) plug(n *local.Server) error { return h.of(n).Plug() }

// isolate drops what comes from the other nodes; clients still reach it.
func (h *hosts) isolate(n *local.Server) error {
	for _, peer := range h.Hosts {
		if peer != h.of(n) {
			if err := h.drop(n, peer); err != nil {
				return err
			}
		}
	}
	return nil
}

// fromLeader drops what comes from the leader alone.
func (h *hosts) fromLeader(n *local.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	leader, err := h.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	return h.drop(n, h.of(leader))
}

func (h *hosts) drop(n *local.Server, peer *netns.Host) error {
	return h.filter(n, "-A", "INPUT", "-s", peer.Addr, "-j", "DROP")
}

func (h *hosts) heal(n *local.Server) error { return h.filter(n, "-F", "INPUT") }

func (h *hosts) filter(n *local.Server, args ...string) error {
	command := slices.Concat(h.of(n).Command(), []string{"iptables", "-w"}, args)
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", command, err, out)
	}
	return nil
}

// TestBalancerCut cuts one node after the other off, under load: from everybody, and from the other nodes alone.
func TestBalancerCut(t *testing.T) {
	h := startHosts(t, 90, local.ClusterOptions{Bin: os.Getenv("DEUCALION_BIN")})
	b := startBalancer(t, h.cluster.Nodes)
	s := startSender(t, b)
	for i := range h.cluster.Nodes {
		b.await(t, i, "UP")
	}
	var written atomic.Int64
	for _, f := range []fault{
		{name: "follower unplugged", fail: h.unplug, mend: h.plug},
		{name: "leader unplugged", leader: true, fail: h.unplug, mend: h.plug},
		{name: "follower cut off from the nodes", fail: h.isolate, mend: h.heal},
		{name: "follower cut off from the leader", fail: h.fromLeader, mend: h.heal},
		{name: "leader cut off from the nodes", leader: true, fail: h.isolate, mend: h.heal},
	} {
		t.Run(f.name, func(t *testing.T) { b.suffer(t, h.cluster, f, &written) })
	}
	s.finish(t, h.cluster)
	requireWritten(t, h.cluster, written.Load())
}
