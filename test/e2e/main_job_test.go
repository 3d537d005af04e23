// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

var (
	// errNotEnded is given while scraping goes on.
	errNotEnded = errors.New("series has not ended")
	// errNotYet is given while a count is too low or a queue too full.
	errNotYet = errors.New("not yet")
)

// TestMainJob is what Deucalion is for: an unchanged Prometheus scrapes real targets and remote-writes to one
// node, the leader dies and comes back, and in the end every node has exactly what that Prometheus has, and
// answers as it does.
func TestMainJob(t *testing.T) {
	c := harness.New(t)
	jobs := map[string][]string{"node": {newExporter(t).Addr}, "deucalion": nil}
	for _, n := range c.Nodes {
		jobs["deucalion"] = append(jobs["deucalion"], n.Addr)
	}
	stock := newScraper(t, c.Nodes[1], jobs)
	sc := stock.Client()
	t.Cleanup(sc.Close)

	awaitCount(t, sc, `count_over_time(up{job="node"}[1h])`, 60)
	leader := harness.Leader(t, c)
	t.Logf("killing the leader, %s", leader.Name)
	require.NoError(t, leader.Kill())
	awaitCount(t, sc, fmt.Sprintf(`count_over_time((up{instance=%q} == 0)[1h:1s])`, leader.Addr), 5)
	harness.Start(t, c)
	awaitCount(t, sc, `count_over_time(up{job="node"}[1h])`, 100)

	for job := range jobs {
		stock.setTargets(t, job, nil)
	}
	data := drained(t, sc)
	t.Logf("stock has %d samples of %d series", data.Len(), len(data))
	for _, n := range c.Nodes {
		cl := n.Client().At(client.Linearizable)
		got, err := cl.ReadAll(t.Context())
		cl.Close()
		require.NoError(t, err, n.Name)
		require.Empty(t, client.Diff(data, got, 20), "%s against stock", n.Name)
	}
	compareAnswers(t, c, stock.Server, data, leader.Addr)
	compareTools(t, c, stock.Server, data)
}

// awaitCount waits until a query about the stock server's own data gives at least want.
func awaitCount(t *testing.T, sc *client.Client, expr string, want float64) {
	t.Helper()
	harness.Await(t, 3*time.Minute, expr, func(ctx context.Context) error {
		r, err := sc.Query(ctx, expr, time.Now().UnixMilli())
		if err != nil {
			return err
		}
		if len(r.Series) != 1 {
			return fmt.Errorf("%w: %d series", errNotYet, len(r.Series))
		}
		v, err := strconv.ParseFloat(r.Series[0].Points[0].Value, 64)
		if err != nil {
			return err
		}
		if v < want {
			return fmt.Errorf("%w: %v of %v", errNotYet, v, want)
		}
		return nil
	})
}

// drained waits until scraping has ended, stale markers and all, and the queue has sent everything, and returns
// what the stock server has. Nothing may have been dropped on the way.
func drained(t *testing.T, sc *client.Client) client.Data {
	t.Helper()
	var data client.Data
	harness.Await(t, 2*time.Minute, "the end of scraping", func(ctx context.Context) error {
		var err error
		if data, err = sc.ReadAll(ctx); err != nil {
			return err
		}
		return ended(data)
	})
	harness.Await(t, 2*time.Minute, "the queue to drain", func(ctx context.Context) error {
		m, err := sc.Metrics(ctx)
		if err != nil {
			return err
		}
		require.Zero(t, m.Sum("prometheus_remote_storage_samples_failed_total"), "samples refused by the node")
		require.Zero(t, m.Sum("prometheus_remote_storage_samples_dropped_total"), "samples dropped by the sender")
		sent := m.Sum("prometheus_remote_storage_queue_highest_sent_timestamp_seconds")
		highest := m.Sum("prometheus_remote_storage_highest_timestamp_in_seconds")
		pending := m.Sum("prometheus_remote_storage_samples_pending")
		if pending > 0 || sent < highest {
			return fmt.Errorf("%w: %v samples pending, sent up to %v of %v", errNotYet, pending, sent, highest)
		}
		return nil
	})
	return data
}

// servers lists the stock server first.
func servers(c *local.Cluster, stock *local.Server) []*local.Server {
	return append([]*local.Server{stock}, c.Nodes...)
}
