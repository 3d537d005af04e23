// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/local"
)

var errNotYet = errors.New("not yet")

// remote is a store that a node ships to.
type remote struct {
	*httptest.Server
	name string // under which the node notes what has arrived

	mu      sync.Mutex // protects the following
	refuses bool
	got     map[string]int // samples by name of the metric
}

func newRemote(t *testing.T, name string) *remote {
	t.Helper()
	r := &remote{name: name, got: map[string]int{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// remotes are the two stores of the fixtures: one that had everything but the tail, of which the last entry that notes it
// tells, and one that had nothing any more after the snapshot, which tells of it.
func remotes(t *testing.T) (most, early *remote, config string) {
	t.Helper()
	most, early = newRemote(t, "most"), newRemote(t, "early")
	return most, early, fmt.Sprintf("remote_write: [{name: most, url: %q}, {name: early, url: %q}]\n", most.URL, early.URL)
}

// ServeHTTP takes remote write 1.0.
func (r *remote) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var wr prompb.WriteRequest
	body, err := io.ReadAll(req.Body)
	if err == nil {
		body, err = snappy.Decode(nil, body)
	}
	if err == nil {
		err = wr.Unmarshal(body)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	case r.refuses:
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		for _, ts := range wr.Timeseries {
			for _, l := range ts.Labels {
				if l.Name == "__name__" {
					r.got[l.Value] += len(ts.Samples) + len(ts.Histograms)
				}
			}
		}
	}
}

func (r *remote) refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuses = true
}

func (r *remote) samples(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[name]
}

// await waits for samples of a metric.
func (r *remote) await(t *testing.T, name string, want int) {
	t.Helper()
	await(t, fmt.Sprintf("%d samples of %s in the remote store", want, name), func(context.Context) error {
		if n := r.samples(name); n < want {
			return fmt.Errorf("%w: %d", errNotYet, n)
		}
		return nil
	})
}

// awaitNoted waits until s has noted in its log that all stores have got everything: its log grows no more.
func awaitNoted(t *testing.T, s *local.Server, stores ...*remote) {
	t.Helper()
	const quiet = 5 * time.Second // twice as long as positions wait to be noted
	c := s.Client()
	defer c.Close()
	var last float64
	var since time.Time
	await(t, "noted positions", func(ctx context.Context) error {
		m, err := c.Metrics(ctx)
		if err != nil {
			return err
		}
		if now := m.Sum("deucalion_raft_last_log_index"); now != last {
			last, since = now, time.Now()
		}
		for _, r := range stores {
			if r.position(m) == 0 {
				return fmt.Errorf("%w: nothing has arrived in %s", errNotYet, r.name)
			}
		}
		if time.Since(since) < quiet {
			return fmt.Errorf("%w: the log ends at %v", errNotYet, last)
		}
		return nil
	})
}

// position is how far the node has got with r.
func (r *remote) position(m client.Metrics) float64 {
	for _, x := range m["deucalion_remote_storage_position"].GetMetric() {
		for _, l := range x.GetLabel() {
			if l.GetValue() == r.name {
				return x.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func await(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	require.NoError(t, local.Poll(ctx, f), "waiting for %s", what)
}

// tail is written after the store has begun to refuse.
func tail(t *testing.T, s *local.Server) {
	t.Helper()
	send(t, s, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels: client.Labels("__name__", unshipped), Samples: []prompb.Sample{{Timestamp: base + 240*60_000, Value: 1}},
	}}})
}

const unshipped = "tail"
