// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"context"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/fault"
)

// store is a server that writes and deletes.
type store struct {
	// forget makes it acknowledge a request, of which there were so many before, without doing it.
	forget func(r *http.Request, times int) bool
	// fail makes it do a request and answer with an error.
	fail func(r *http.Request, times int) bool

	mu    sync.Mutex
	data  client.Data
	times map[string]int // requests by path
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	times := s.times[r.URL.Path]
	s.times[r.URL.Path]++
	if s.forget == nil || !s.forget(r, times) {
		if err := s.do(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	if s.fail != nil && s.fail(r, times) {
		http.Error(w, "no answer from the leader", http.StatusServiceUnavailable)
	}
}

func (s *store) do(r *http.Request) error {
	if isDelete(r) {
		first, last := bound(r, "start", math.MinInt64), bound(r, "end", math.MaxInt64)
		for _, key := range r.Form["match[]"] {
			s.data[key] = slices.DeleteFunc(s.data[key], func(x client.Sample) bool { return x.T >= first && x.T <= last })
		}
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	raw, err := snappy.Decode(nil, body)
	if err != nil {
		return err
	}
	var req prompb.WriteRequest
	if err := req.Unmarshal(raw); err != nil {
		return err
	}
	for _, ts := range req.Timeseries {
		key := client.Key(ts.Labels)
		for _, x := range ts.Samples {
			sample := client.Sample{T: x.Timestamp, Bits: math.Float64bits(x.Value)}
			if !slices.Contains(s.data[key], sample) {
				s.data[key] = append(s.data[key], sample)
			}
		}
	}
	return nil
}

func isDelete(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/delete_series") }

func bound(r *http.Request, name string, fallback int64) int64 {
	seconds, err := strconv.ParseFloat(r.FormValue(name), 64)
	if err != nil {
		return fallback
	}
	return int64(math.Round(seconds * 1000))
}

// deleted lets a store be worked on until enough was deleted.
func deleted(t *testing.T, s *store) *fault.Deletes {
	t.Helper()
	s.data, s.times = client.Data{}, map[string]int{}
	server := httptest.NewServer(s)
	defer server.Close() // and with it what is under way
	cl := client.New(server.URL)
	t.Cleanup(cl.Close)
	d := fault.NewDeletes([]*client.Client{cl})
	d.Interval, d.Late, d.Seed = time.Millisecond, true, 7
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Run(ctx)
	}()
	require.Eventually(t, func() bool {
		sum := d.Summary()
		return sum.Acked > 60 && sum.Present > 200 && sum.Gone > 200
	}, time.Minute, 10*time.Millisecond)
	cancel()
	<-done
	return d
}

func TestDeletes(t *testing.T) {
	s := &store{}
	d := deleted(t, s)
	require.Empty(t, d.Check(s.data, 10))
	sum := d.Summary()
	require.GreaterOrEqual(t, sum.Deletes, sum.Acked)
	require.Greater(t, sum.Samples, sum.Present)
	found := d.Check(client.Data{`{__name__="other"}`: {{T: 1}}}, 5)
	require.Len(t, found, 6)
	require.Contains(t, found[0], "lost")
}

// What was tried more than once is not judged too hard: both of these happen to a server that does no wrong.
func TestDeletesOfUnknownFate(t *testing.T) {
	s := &store{fail: func(_ *http.Request, times int) bool { return times%3 == 0 }}
	d := deleted(t, s)
	require.Empty(t, d.Check(s.data, 10))
	again := &store{forget: func(_ *http.Request, times int) bool { return times%5 == 4 }}
	again.fail = again.forget
	d = deleted(t, again)
	require.Empty(t, d.Check(again.data, 10))
}

func TestDeletesFindFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		forget func(*http.Request, int) bool
		damage func(client.Data)
		want   string
	}{
		"forgotten deletes": {forget: func(r *http.Request, _ int) bool { return isDelete(r) }, want: "deleted sample is there: "},
		"forgotten writes":  {forget: func(r *http.Request, times int) bool { return !isDelete(r) && times%10 == 9 }, want: "acknowledged sample that was not deleted is lost: "},
		"altered":           {damage: func(d client.Data) { some(d)[0].Bits++ }, want: "sample altered: "},
		"twice": {damage: func(d client.Data) {
			for key, samples := range d {
				d[key] = append(samples, samples...)
			}
		}, want: "sample twice: "},
		"made up": {damage: func(d client.Data) {
			for key := range d {
				d[key] = append(d[key], client.Sample{T: 5})
			}
		}, want: "sample that was never sent: "},
		"foreign": {damage: func(d client.Data) { d[`{__name__="fault_delete",n="x"}`] = nil }, want: "series that was never sent: "},
	} {
		t.Run(name, func(t *testing.T) {
			s := &store{forget: tc.forget}
			d := deleted(t, s)
			if tc.damage != nil {
				tc.damage(s.data)
			}
			found := d.Check(s.data, 1000)
			require.NotEmpty(t, found)
			for _, line := range found[:min(len(found), 1000)] {
				require.True(t, strings.HasPrefix(line, tc.want), line)
			}
		})
	}
}

// some are the samples of a series that has some.
func some(d client.Data) []client.Sample {
	for _, key := range d.Keys() {
		if len(d[key]) > 0 {
			return d[key]
		}
	}
	return nil
}
