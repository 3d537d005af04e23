// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/bench"
)

func target(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	return srv.URL
}

func options(urls ...string) bench.Options {
	o := bench.Defaults()
	o.URLs, o.Series, o.Batch, o.Duration, o.Rounds = urls, 100, 30, 0, 5
	return o
}

func TestRounds(t *testing.T) {
	for _, protocol := range []int{1, 2} {
		o := options(target(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
		o.Protocol = protocol
		r, err := bench.Run(t.Context(), o)
		require.NoError(t, err)
		require.Equal(t, 500, r.Samples)
		require.Equal(t, 20, r.Requests)
		require.Empty(t, r.Errors)
	}
}

func TestRetriesUntilAcknowledged(t *testing.T) {
	var n atomic.Int64
	flaky := target(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	r, err := bench.Run(t.Context(), options(flaky))
	require.NoError(t, err)
	require.Equal(t, 500, r.Samples)
	require.Equal(t, map[string]int{"retried after status 503": 1}, r.Errors)
}

func TestRefusedIsNotRetried(t *testing.T) {
	refusing := target(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) })
	r, err := bench.Run(t.Context(), options(refusing))
	require.NoError(t, err)
	require.Zero(t, r.Samples)
	require.Equal(t, map[string]int{"refused with status 400": 20}, r.Errors)
}

func TestURLsTakeTurns(t *testing.T) {
	var n [2]atomic.Int64
	var urls []string
	for i := range n {
		urls = append(urls, target(t, func(http.ResponseWriter, *http.Request) { n[i].Add(1) }))
	}
	_, err := bench.Run(t.Context(), options(urls...))
	require.NoError(t, err)
	require.Positive(t, n[0].Load())
	require.Positive(t, n[1].Load())
}

func TestEnds(t *testing.T) {
	ok := target(t, func(http.ResponseWriter, *http.Request) {})
	o := options(ok)
	o.Rounds, o.Start = 1000, time.Now().Add(-time.Minute)
	r, err := bench.Run(t.Context(), o)
	require.NoError(t, err)
	require.Contains(t, r.Errors, "end: timestamps have reached the present")

	o = options(ok)
	o.Rounds, o.Duration, o.Rate = 0, 200*time.Millisecond, 1000
	r, err = bench.Run(t.Context(), o)
	require.NoError(t, err)
	require.Positive(t, r.Samples)
	require.LessOrEqual(t, float64(r.Samples), 1000*r.Elapsed.Seconds()+200, "1000 a second, and the first requests at once")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o.Duration = time.Hour
	_, err = bench.Run(ctx, o)
	require.NoError(t, err)
}

func TestBadOptions(t *testing.T) {
	for _, change := range []func(*bench.Options){
		func(o *bench.Options) { o.URLs = nil },
		func(o *bench.Options) { o.Protocol = 3 },
		func(o *bench.Options) { o.Labels = 2 },
		func(o *bench.Options) { o.Senders = 0 },
		func(o *bench.Options) { o.Rounds = 0 },
		func(o *bench.Options) { o.Start = time.Unix(1, 0) },
	} {
		o := options("http://127.0.0.1:1")
		change(&o)
		_, err := bench.Run(t.Context(), o)
		require.ErrorIs(t, err, bench.ErrOptions)
	}
}

func TestAccount(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a")
	require.NoError(t, os.WriteFile(file, make([]byte, 10_000), 0o644))
	require.NoError(t, os.Link(file, filepath.Join(dir, "b")))
	a := bench.Account{PIDs: map[string]int{"me": os.Getpid()}, Dirs: map[string]string{"me": dir}}
	require.NoError(t, a.Open())
	costs, err := a.Close(1000)
	require.NoError(t, err)
	require.Len(t, costs, 1)
	require.Positive(t, costs[0].RSS)
	require.GreaterOrEqual(t, costs[0].Peak, costs[0].RSS)
	require.EqualValues(t, 10_000, costs[0].Disk.Apparent, "links count once")
}
