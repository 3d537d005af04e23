// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compose_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// sender is a Prometheus that scrapes itself and sends what it has to the balancer.
type sender struct {
	*local.Stock
	send string // the part of its configuration that stays
}

// startSender starts Debian's Prometheus.
func startSender(t *testing.T, b *balancer) *sender {
	t.Helper()
	if _, err := exec.LookPath("prometheus"); err != nil {
		t.Skip("no prometheus here; test/scripts/debian-prometheus.sh installs one")
	}
	s := &sender{send: "global: {external_labels: {sender: stock}}\nremote_write: [{url: 'http://" + b.Addr + "/api/v1/write'}]\n"}
	s.Stock = harness.Stock(t, local.StockOptions{Config: s.send})
	require.NoError(t, s.Configure(s.send+
		"scrape_configs: [{job_name: self, scrape_interval: 1s, static_configs: [{targets: ['"+s.Addr+"']}]}]\n"))
	require.NoError(t, s.Reload())
	return s
}

// finish ends the scrapes and insists that none of the samples has failed and that all are on every node.
func (s *sender) finish(t *testing.T, c *local.Cluster) {
	t.Helper()
	require.NoError(t, s.Configure(s.send))
	require.NoError(t, s.Reload())
	cl := s.Client()
	defer cl.Close()
	harness.Await(t, time.Minute, "the last scrape", func(ctx context.Context) error {
		var targets struct{ ActiveTargets []any }
		err := cl.Data(ctx, "/api/v1/targets", nil, &targets)
		if err == nil && len(targets.ActiveTargets) > 0 {
			err = errors.New("there are targets")
		}
		return err
	})
	want, err := cl.ReadAll(t.Context())
	require.NoError(t, err)
	require.Greater(t, want.Len(), 1000)
	for _, n := range c.Nodes {
		reader := n.Client().At(client.Linearizable)
		defer reader.Close()
		harness.Await(t, time.Minute, "samples of the sender on "+n.Name, func(ctx context.Context) error {
			got, err := reader.ReadAll(ctx)
			if err != nil {
				return err
			}
			for key := range got {
				if _, ok := want[key]; !ok {
					delete(got, key) // of others
				}
			}
			if diff := client.Diff(want, got, 3); len(diff) > 0 {
				return errors.New(strings.Join(diff, "\n"))
			}
			return nil
		})
	}
	m, err := cl.Metrics(t.Context())
	require.NoError(t, err)
	for _, name := range []string{"prometheus_remote_storage_samples_failed_total", "prometheus_remote_storage_samples_dropped_total"} {
		require.Contains(t, m, name)
		require.Zero(t, m.Sum(name), name)
	}
	t.Logf("%d samples of a Prometheus sent, sent again: %v", want.Len(), m.Sum("prometheus_remote_storage_samples_retried_total"))
}
