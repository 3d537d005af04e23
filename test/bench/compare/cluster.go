// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"context"
	"fmt"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/local"
)

// Metrics of a node that the comparison reads.
const (
	logBytesMetric     = "deucalion_raft_log_written_bytes_total"
	snapshotHoldMetric = "deucalion_fsm_snapshot_seconds"
)

// runCluster runs the load against one of three nodes: the leader or a follower.
func runCluster(ctx context.Context, o Options, dir string, onLeader bool) (*run, error) {
	c, err := local.NewCluster(local.ClusterOptions{Bin: o.Bin, Dir: dir, Flags: o.Flags})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	leader, err := startCluster(ctx, c)
	if err != nil {
		return nil, err
	}
	target, servers := roles(c, leader, onLeader)
	before, err := metricsOf(ctx, c)
	if err != nil {
		return nil, err
	}
	r, err := measure(ctx, o, target, servers)
	if err != nil {
		return nil, err
	}
	after, err := metricsOf(ctx, c)
	if err != nil {
		return nil, err
	}
	for i := range after {
		written := after[i].Sum(logBytesMetric) - before[i].Sum(logBytesMetric)
		r.log = append(r.log, written/float64(max(r.report.Samples, 1)))
		_, hold := after[i].Bound(snapshotHoldMetric)
		r.hold = max(r.hold, hold)
	}
	wait, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	now, err := c.Leader(wait)
	if err != nil {
		return nil, err
	}
	if now != leader {
		r.note = fmt.Sprintf("(the leader changed from %s to %s: roles are mixed)", leader.Name, now.Name)
	}
	return r, nil
}

func startCluster(ctx context.Context, c *local.Cluster) (*local.Server, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	return c.Leader(ctx)
}

// roles names the nodes by what they do in a run, and tells which one gets the load.
func roles(c *local.Cluster, leader *local.Server, onLeader bool) (target *local.Server, servers map[string]*local.Server) {
	followers := c.Followers(leader)
	if onLeader {
		servers = map[string]*local.Server{leaderReceives: leader}
		for i, f := range followers {
			servers[fmt.Sprintf("%s (%d)", followerOnly, i+1)] = f
		}
		return leader, servers
	}
	servers = map[string]*local.Server{leaderOnly: leader, followerReceives: followers[0]}
	for i, f := range followers[1:] {
		servers[fmt.Sprintf("%s (%d)", followerOnly, i+1)] = f
	}
	return followers[0], servers
}

func metricsOf(ctx context.Context, c *local.Cluster) ([]client.Metrics, error) {
	out := make([]client.Metrics, len(c.Nodes))
	for i, n := range c.Nodes {
		m, err := fetch(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.Name, err)
		}
		out[i] = m
	}
	return out, nil
}
