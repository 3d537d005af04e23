// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

func readerFSM(t *testing.T, from, to int64) *fsm.FSM {
	t.Helper()
	f, err := fsm.Open(fsm.Options{Dir: t.TempDir(), Storage: storage.Options{Manual: true}}, "")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	l := &soloLog{fsm: f}
	_, err = shipBatch(t.Context(), f, l, func(b *fsm.Batch) {
		b.Series(nil, labels.FromStrings("__name__", "m"))
		for i := from; i <= to; i++ {
			b.Float(i, float64(i))
		}
	})
	require.NoError(t, err)
	return f
}

// times returns the timestamps of m, and how many warnings came with them.
func times(t *testing.T, q promstorage.SampleAndChunkQueryable) (ts []int64, warnings int) {
	t.Helper()
	x, err := q.Querier(0, 100)
	require.NoError(t, err)
	defer x.Close()
	set := x.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
	for set.Next() {
		for it := set.At().Iterator(nil); it.Next() != chunkenc.ValNone; {
			at, v := it.At()
			require.Equal(t, float64(at), v)
			ts = append(ts, at)
		}
	}
	require.NoError(t, set.Err())
	return ts, len(set.Warnings())
}

func TestRemoteReaderMerges(t *testing.T) {
	local, far := readerFSM(t, 10, 14), readerFSM(t, 1, 12)
	handler := remote.NewReadHandler(shipLogger(t), nil, far.ExactQueryable(), func() config.Config { return config.DefaultConfig }, 1e6, 10, 1<<20)
	var asked atomic.Int32
	var broken atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if broken.Load() {
			http.Error(w, "broken", http.StatusInternalServerError)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(LibraryMetrics{})
	r := NewRemoteReader(local, shipLogger(t))
	defer func() { require.NoError(t, r.Close()) }()
	recent := []int64{10, 11, 12, 13, 14}
	all := append([]int64{1, 2, 3, 4, 5, 6, 7, 8, 9}, recent...)

	got, _ := times(t, r)
	require.Equal(t, recent, got)
	section := fmt.Sprintf("remote_read: [{url: '%s'}]\n", server.URL)
	require.NoError(t, r.ApplyConfig(loadShip(t, section)))
	require.Zero(t, asked.Load())
	got, warnings := times(t, r)
	require.Equal(t, all, got)
	require.Zero(t, warnings)
	require.EqualValues(t, 1, asked.Load())
	require.Positive(t, gathered(t, reg, "prometheus_remote_read_client_queries_total"))

	broken.Store(true)
	got, warnings = times(t, r)
	require.Equal(t, recent, got)
	require.Equal(t, 1, warnings, "its errors are no errors")
	broken.Store(false)

	require.Error(t, r.ApplyConfig(loadShip(t, section[:len(section)-2]+fmt.Sprintf(", {url: '%s'}]\n", server.URL))), "twice the same")
	require.NoError(t, r.ApplyConfig(loadShip(t, "")))
	before := asked.Load()
	got, _ = times(t, r)
	require.Equal(t, recent, got)
	require.Equal(t, before, asked.Load())

	// What is wholly within the local data is not asked for, but in the first hours, when it is not whole yet.
	require.NoError(t, r.ApplyConfig(loadShip(t, section)))
	const margin = 4 * 3600 * 1000
	for mint, more := range map[int64]int32{11: 1, 10 + margin: 1, 11 + margin: 0} {
		before = asked.Load()
		x, err := r.Querier(mint, 20+margin)
		require.NoError(t, err)
		set := x.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
		require.Equal(t, mint == 11, set.Next())
		require.NoError(t, set.Err())
		require.NoError(t, x.Close())
		require.Equal(t, before+more, asked.Load(), "from %d", mint)
	}
}
