// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/fault"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// Alerts, scrapes and deletes of a real cluster whose leader is killed twice.
func TestLoadOfCluster(t *testing.T) {
	alerts, err := fault.NewAlerts("127.0.0.1")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, alerts.Close()) })
	scrapes, err := fault.NewScrapes("127.0.0.1", 5)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, scrapes.Close()) })
	dir := t.TempDir()
	conf := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rules.yml"), []byte(alerts.Rules()), 0o644))
	require.NoError(t, os.WriteFile(conf, []byte("storage: {tsdb: {out_of_order_time_window: 30m}}\nrule_files: [rules.yml]\n"+
		"alerting: {alertmanagers: [{static_configs: [{targets: ['"+alerts.Address()+"']}]}]}\nscrape_configs:\n"+scrapes.ScrapeConfig()), 0o644))
	bin, _ := built.get(t)
	c := harness.Prepare(t, local.ClusterOptions{Bin: bin, Flags: []string{"--config.file=" + conf, "--rules.alert.resend-delay=2s"}})
	harness.Start(t, c)
	clients := harness.Clients(t, c.Nodes)

	alerts.Every, alerts.Hold = time.Second, 8*time.Second
	alerts.Write = func(ctx context.Context, series []prompb.TimeSeries) error {
		for {
			err := clients[rand.IntN(len(clients))].Write(ctx, series)
			if err == nil || ctx.Err() != nil {
				return err
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	deletes := fault.NewDeletes(clients)
	deletes.Workers, deletes.Interval, deletes.Late, deletes.Seed = 2, 100*time.Millisecond, true, 1
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	defer load.Wait()
	defer cancel()
	load.Go(func() { alerts.Run(ctx) })
	load.Go(func() { deletes.Run(ctx) })
	for i := range 2 {
		harness.Await(t, time.Minute, "alerts", func(context.Context) error {
			if n := alerts.Summary().Begun; n < 10*(i+1) {
				return fmt.Errorf("%d have begun", n)
			}
			return nil
		})
		require.NoError(t, harness.Leader(t, c).Kill())
		harness.Leader(t, c)
		harness.Start(t, c)
	}
	cancel()
	load.Wait()
	alerts.Finish(t.Context(), 90*time.Second)
	require.Empty(t, alerts.Findings(10))

	var readers []fault.Reader
	for i, cl := range clients {
		readers = append(readers, fault.Reader{Name: c.Nodes[i].Name, Read: cl.At(client.Linearizable).Read})
		require.Empty(t, deletes.Check(harness.ReadAll(t, c.Nodes[i]), 10), c.Nodes[i].Name)
	}
	found, err := scrapes.Check(t.Context(), readers, true, 10)
	require.NoError(t, err)
	require.Empty(t, found)
	t.Logf("%+v %+v %+v", alerts.Summary(), scrapes.Summary(), deletes.Summary())
	require.Positive(t, scrapes.Summary().Stored)
	require.Positive(t, deletes.Summary().Gone)
	require.Positive(t, deletes.Summary().Present)
}
