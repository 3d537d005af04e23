// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// TestShipToPrometheus has a stock Prometheus as the remote store of a cluster whose leaders are killed, also while it
// is away itself. It takes no sample that is older than the newest of its series, so that an order that is lost is seen.
func TestShipToPrometheus(t *testing.T) {
	sink := harness.Stock(t, local.StockOptions{Config: "{}", Flags: []string{"--web.enable-remote-write-receiver"}})
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "global: {external_labels: {cluster: main}}\nremote_write: [{url: 'http://%s/api/v1/write'}]\n", sink.Addr), 0o644))
	c := harness.New(t, "--config.file="+file)
	cl := sink.Client()
	defer cl.Close()

	// The remote store begins with what comes after the leader has found it in its file.
	awaitFirst(t, c, cl)
	w := startShipWriter(t, c)
	for round := range 4 {
		w.progress(t, 100)
		leader := harness.Leader(t, c)
		require.NoError(t, leader.Kill())
		if round == 2 {
			require.NoError(t, sink.Kill())
			w.progress(t, 100)
			require.NoError(t, sink.Start())
			harness.WaitReady(t, sink.Server)
		}
		w.progress(t, 100)
		harness.Start(t, c)
	}
	want := w.finish()
	start := time.Now()
	harness.Await(t, 2*time.Minute, "everything in the remote store", func(ctx context.Context) error {
		got, err := cl.ReadAll(ctx)
		if err != nil {
			return err
		}
		for key := range got {
			if want[key] == nil {
				delete(got, key)
			}
		}
		if diff := client.Diff(want, got, 5); len(diff) > 0 {
			return fmt.Errorf("%d samples of %d: %v", got.Len(), want.Len(), diff)
		}
		return nil
	})
	t.Logf("all of %d samples arrived, the last %s after the last write", want.Len(), time.Since(start).Round(time.Millisecond))
}

// awaitFirst writes until something arrives.
func awaitFirst(t *testing.T, c *local.Cluster, sink *client.Client) {
	t.Helper()
	to := c.Nodes[0].Client()
	defer to.Close()
	harness.Await(t, time.Minute, "the first sample in the remote store", func(ctx context.Context) error {
		now := time.Now().UnixMilli()
		if err := to.Write(ctx, []prompb.TimeSeries{{Labels: client.Labels("__name__", "first"), Samples: []prompb.Sample{{Timestamp: now, Value: 1}}}}); err != nil {
			return err
		}
		got, err := sink.ReadAll(ctx)
		if err == nil && got.Len() == 0 {
			err = fmt.Errorf("nothing yet")
		}
		return err
	})
}

// shipWriter writes through one node after another, each request until it is acknowledged.
type shipWriter struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex // protects the following
	acked int
	data  client.Data
}

func startShipWriter(t *testing.T, c *local.Cluster) *shipWriter {
	ctx, cancel := context.WithCancel(t.Context())
	w := &shipWriter{cancel: cancel, data: client.Data{}}
	clients := harness.Clients(t, c.Nodes)
	w.wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			now := time.Now().UnixMilli()
			var rows []prompb.TimeSeries
			for i := range 20 {
				rows = append(rows, prompb.TimeSeries{
					Labels:  client.Labels("__name__", "shipped", "i", fmt.Sprint(i)),
					Samples: []prompb.Sample{{Timestamp: now, Value: float64(n)}},
				})
			}
			for try, until := n, time.Now().Add(time.Minute); ; try++ {
				if time.Now().After(until) {
					return // the test fails for lack of progress
				}
				once, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
				err := clients[try%len(clients)].Write(once, rows)
				done()
				if err == nil {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			w.add(rows)
			time.Sleep(20 * time.Millisecond)
		}
	})
	t.Cleanup(func() {
		cancel()
		w.wg.Wait()
	})
	return w
}

func (w *shipWriter) add(rows []prompb.TimeSeries) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked++
	for _, r := range rows {
		key := client.Key(append(client.Labels("cluster", "main"), r.Labels...))
		w.data[key] = append(w.data[key], client.Sample{T: r.Samples[0].Timestamp, Bits: math.Float64bits(r.Samples[0].Value)})
	}
}

// progress waits until n more requests are acknowledged.
func (w *shipWriter) progress(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.acked
	}
	want := count() + n
	harness.Await(t, time.Minute, "acknowledged writes", func(context.Context) error {
		if got := count(); got < want {
			return fmt.Errorf("%d of %d", got, want)
		}
		return nil
	})
}

// finish ends the writing and returns what the remote store must hold.
func (w *shipWriter) finish() client.Data {
	w.cancel()
	w.wg.Wait()
	return w.data
}
