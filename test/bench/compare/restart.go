// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/deucaliondb/deucalion/test/bench"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/local"
)

// replayedMetric counts samples applied since the process started: right after a restart, those that were replayed.
const replayedMetric = "deucalion_fsm_samples_applied_total"

// RestartOptions say how restarts are measured.
type RestartOptions struct {
	Bin   string
	Dir   string        // of the data; left behind, for a look at what lies there
	Nodes int           // size of the cluster
	Flags []string      // for each node, beyond those which the cluster needs
	Load  bench.Options // written before; URLs are filled in
	Out   io.Writer
}

// Restart fills a cluster and measures how soon a node is ready again after a kill -9, and after a graceful stop.
func Restart(ctx context.Context, o RestartOptions) error {
	c, err := local.NewCluster(local.ClusterOptions{Bin: o.Bin, Dir: o.Dir, Nodes: o.Nodes, Flags: o.Flags})
	if err != nil {
		return err
	}
	defer c.Close()
	leader, err := startCluster(ctx, c)
	if err != nil {
		return err
	}
	o.Load.URLs = []string{"http://" + leader.Addr + "/api/v1/write"}
	report, err := bench.Run(ctx, o.Load)
	if err != nil {
		return err
	}
	fmt.Fprint(o.Out, report)
	node := leader // of a cluster of one
	if followers := c.Followers(leader); len(followers) > 0 {
		node = followers[0]
	}
	if err := printHold(ctx, o.Out, node); err != nil {
		return err
	}
	if err := node.Kill(); err != nil {
		return err
	}
	if err := timeStart(ctx, o.Out, node, "after kill -9"); err != nil {
		return err
	}
	start := time.Now()
	if err := node.Stop(); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "graceful stop   %.2f s\n", time.Since(start).Seconds())
	return timeStart(ctx, o.Out, node, "after a graceful stop")
}

func printHold(ctx context.Context, w io.Writer, n *local.Server) error {
	m, err := fetch(ctx, n)
	if err != nil {
		return err
	}
	count, bound := m.Bound(snapshotHoldMetric)
	fmt.Fprintf(w, "snapshots       %d so far, none held up applying longer than %.0f ms, %.1f ms in all\n",
		count, bound*1000, m.Sum(snapshotHoldMetric)*1000)
	return nil
}

// timeStart starts a node and tells how soon it is ready, and how many samples it replayed for that.
func timeStart(ctx context.Context, w io.Writer, n *local.Server, when string) error {
	start := time.Now()
	if err := n.Start(); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := n.WaitReady(wait); err != nil {
		return err
	}
	took := time.Since(start)
	m, err := fetch(ctx, n)
	if err != nil {
		return err
	}
	replayed := m.Sum(replayedMetric)
	fmt.Fprintf(w, "ready again     %.2f s %s; %.0f samples replayed, %.0f samples/s\n",
		took.Seconds(), when, replayed, replayed/took.Seconds())
	return nil
}

func fetch(ctx context.Context, n *local.Server) (client.Metrics, error) {
	c := n.Client()
	defer c.Close()
	return c.Metrics(ctx)
}
