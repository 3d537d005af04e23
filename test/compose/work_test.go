// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compose_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

const (
	writers = 2
	readers = 4
)

// work is what clients do all the time, each one after the other: some write, some ask.
type work struct {
	written *atomic.Int64 // samples acknowledged, of all works
	counts  [writers + readers]atomic.Int64
	slowest atomic.Int64 // call, in ns
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu   sync.Mutex // protects errs
	errs []error
}

// startWork calls the server until stop, with a client for each writer and reader, and adds to written.
func startWork(t *testing.T, s *local.Server, written *atomic.Int64) *work {
	ctx, cancel := context.WithCancel(t.Context())
	w := &work{written: written, cancel: cancel}
	t.Cleanup(func() { // a test that has failed before stop
		cancel()
		w.wg.Wait()
	})
	for i := range w.counts {
		cl := s.Client()
		w.wg.Go(func() {
			defer cl.Close()
			for n := 0; ctx.Err() == nil; n++ {
				var err error
				begin := time.Now()
				if i < writers {
					err = w.write(ctx, cl, fmt.Sprintf("%s-%d-%d", t.Name(), i, n))
				} else {
					err = ask(ctx, cl, n)
				}
				if err != nil && ctx.Err() == nil {
					w.mu.Lock()
					w.errs = append(w.errs, fmt.Errorf("client %d, call %d: %w", i, n, err))
					w.mu.Unlock()
				}
				w.counts[i].Add(1)
				w.took(time.Since(begin))
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
	return w
}

func (w *work) took(d time.Duration) {
	for old := w.slowest.Load(); int64(d) > old && !w.slowest.CompareAndSwap(old, int64(d)); old = w.slowest.Load() {
	}
}

// write sends a sample of a series of its own. What has failed so that it may be repeated is sent once more, as
// Prometheus's queues do after 30 ms.
func (w *work) write(ctx context.Context, cl *client.Client, name string) error {
	body, err := client.Encode([]prompb.TimeSeries{{
		Labels:  client.Labels("__name__", "balanced", "name", name),
		Samples: []prompb.Sample{{Timestamp: time.Now().UnixMilli(), Value: 1}},
	}})
	if err != nil {
		return err
	}
	resp, err := cl.WriteBody(ctx, body)
	if err != nil || resp.Status/100 == 5 {
		time.Sleep(30 * time.Millisecond)
		if resp, err = cl.WriteBody(ctx, body); err != nil {
			return err
		}
	}
	if err := resp.Err(); err != nil {
		return err
	}
	w.written.Add(1)
	return nil
}

// ask queries by GET and by POST in turns, as Grafana does. It is not repeated.
func ask(ctx context.Context, cl *client.Client, n int) error {
	form := url.Values{"query": {"count(balanced) or vector(0)"}}
	var resp *client.Response
	var err error
	if n%2 == 0 {
		resp, err = cl.Do(ctx, http.MethodGet, "/api/v1/query?"+form.Encode(), nil, nil)
	} else {
		resp, err = cl.Do(ctx, http.MethodPost, "/api/v1/query", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, []byte(form.Encode()))
	}
	if err != nil {
		return err
	}
	return resp.Err()
}

// await waits until every client has been served n more times.
func (w *work) await(t *testing.T, n int64) {
	t.Helper()
	var goals [writers + readers]int64
	for i := range w.counts {
		goals[i] = w.counts[i].Load() + n
	}
	harness.Await(t, time.Minute, "clients to be served", func(context.Context) error {
		for i := range w.counts {
			if got := w.counts[i].Load(); got < goals[i] {
				return fmt.Errorf("client %d has done %d calls of %d", i, got, goals[i])
			}
		}
		return nil
	})
}

// stop ends the work and fails the test if any call had failed.
func (w *work) stop(t *testing.T) {
	t.Helper()
	w.cancel()
	w.wg.Wait()
	require.NoError(t, errors.Join(w.errs...))
}

// requireWritten insists that all nodes have what was acknowledged.
func requireWritten(t *testing.T, c *local.Cluster, acknowledged int64) {
	t.Helper()
	require.Positive(t, acknowledged)
	for _, n := range c.Nodes {
		require.GreaterOrEqual(t, int64(harness.ReadAll(t, n).Len()), acknowledged, n.Name)
	}
}
