// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/ledger"
	"github.com/deucaliondb/deucalion/test/local"
)

// receiver keeps what is written to it and can be told to answer otherwise.
type receiver struct {
	mu     sync.Mutex
	data   client.Data
	status func(n int) int // of the n-th request; only 2xx are kept
	n      int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	status := r.status(r.n)
	r.n++
	if status/100 == 2 {
		r.keep(req)
	}
	w.WriteHeader(status)
}

func (r *receiver) keep(req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	raw, err := snappy.Decode(nil, body)
	if err != nil {
		return
	}
	var wr prompb.WriteRequest
	if wr.Unmarshal(raw) != nil {
		return
	}
	resp, err := client.Collect(&prompb.ReadResponse{Results: []*prompb.QueryResult{{Timeseries: pointers(wr.Timeseries)}}})
	if err != nil {
		return
	}
	for key, samples := range resp {
		r.data[key] = append(r.data[key], samples...)
	}
}

func pointers(in []prompb.TimeSeries) []*prompb.TimeSeries {
	out := make([]*prompb.TimeSeries, len(in))
	for i := range in {
		out[i] = &in[i]
	}
	return out
}

// written runs a load against a receiver until n requests are acknowledged.
func written(t *testing.T, n int, status func(int) int) (*ledger.Ledger, client.Data) {
	t.Helper()
	return writtenTo(t, n, status, false)
}

func writtenTo(t *testing.T, n int, status func(int) int, balancer bool) (*ledger.Ledger, client.Data) {
	t.Helper()
	r := &receiver{data: client.Data{}, status: status}
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	l := ledger.New("test")
	load := ledger.Load{
		Targets: []*client.Client{client.New(srv.URL)}, Writers: 2, Series: 5, Samples: 3, Interval: time.Millisecond, Seed: 1,
	}
	if balancer {
		load.Balancer = srv.URL
	}
	w := l.StartWriters(load)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := local.Poll(ctx, func(context.Context) error {
		if l.Acks() < n {
			return io.ErrNoProgress
		}
		return nil
	})
	w.Finish()
	require.NoError(t, err)
	return l, r.data
}

func always(status int) func(int) int { return func(int) int { return status } }

func TestLedgerFindsNothingInWhatWasWritten(t *testing.T) {
	l, data := written(t, 20, always(http.StatusNoContent))
	require.Empty(t, l.Check(data, 10))
	require.Empty(t, l.Faults())
}

func TestLedgerFindsDamage(t *testing.T) {
	const (
		first     = `{__name__="ledger_float",n="0",run="test"}`
		histogram = `{__name__="ledger_histogram",n="4",run="test"}`
	)
	for name, damage := range map[string]struct {
		do   func(client.Data)
		want string
	}{
		"lost sample": {func(d client.Data) { d[first] = d[first][1:] }, "acknowledged sample lost"},
		"lost series": {func(d client.Data) { delete(d, histogram) }, "acknowledged sample lost"},
		"twice":       {func(d client.Data) { d[first] = append(d[first], d[first][0]) }, "sample twice"},
		"altered":     {func(d client.Data) { d[first][1].Bits++ }, "sample altered"},
		"swapped":     {func(d client.Data) { d[histogram][0].Hist = d[histogram][1].Hist }, "sample altered"},
		"made up": {func(d client.Data) {
			d[first] = append(d[first], client.Sample{T: 1})
		}, "sample that was never sent"},
		"foreign": {func(d client.Data) { d[`{a="b"}`] = d[first] }, "series that was never sent"},
	} {
		t.Run(name, func(t *testing.T) {
			l, data := written(t, 5, always(http.StatusNoContent))
			damage.do(data)
			found := l.Check(data, 3)
			require.NotEmpty(t, found)
			require.True(t, strings.HasPrefix(found[0], damage.want), found[0])
		})
	}
}

func TestRetryableAnswersAreNoFaults(t *testing.T) {
	l, data := written(t, 10, func(n int) int {
		if n%3 == 0 {
			return http.StatusServiceUnavailable
		}
		return http.StatusNoContent
	})
	require.Empty(t, l.Faults())
	require.Empty(t, l.Check(data, 10))
}

// A load balancer answers with 502 when a node dies; a node does not.
func TestBadGatewayIsTheBalancers(t *testing.T) {
	once := func(n int) int {
		if n == 3 {
			return http.StatusBadGateway
		}
		return http.StatusNoContent
	}
	l, _ := writtenTo(t, 10, once, true)
	require.Empty(t, l.Faults())
	l, _ = writtenTo(t, 10, once, false)
	require.Len(t, l.Faults(), 1)
}

func TestOtherAnswersAreFaults(t *testing.T) {
	l, _ := written(t, 10, func(n int) int {
		if n == 3 {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	})
	require.Len(t, l.Faults(), 1)
}

// TestStopEndsAPause: a test that fails while the writers are paused must end.
func TestStopEndsAPause(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer srv.Close()
	l := ledger.New("test")
	w := l.StartWriters(ledger.Load{
		Targets: []*client.Client{client.New(srv.URL)}, Writers: 2, Series: 1, Samples: 1, Interval: time.Millisecond, Seed: 1,
	})
	w.Pause()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.Stop()
	}()
	select {
	case <-stopped:
	case <-time.After(30 * time.Second):
		t.Fatal("it waits for the end of the pause")
	}
	w.Resume()
}
