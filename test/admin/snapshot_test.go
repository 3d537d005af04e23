// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"log/slog"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/admin/fill"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
)

// TestSnapshot takes user snapshots on a follower: every node has the same one, with all that was written
// before and nothing that came after.
func TestSnapshot(t *testing.T) {
	c := harness.New(t)
	_, cl := follower(t, c)
	start := time.Now().Add(-20 * time.Minute).UnixMilli()
	first := fill.Grid{Job: "a", Series: 20, Start: start, Step: 5000, Count: 100}
	model := client.Data{}
	rows := first.Make(1)
	require.NoError(t, cl.Write(t.Context(), rows))
	fill.Merge(model, rows)
	require.NoError(t, cl.Delete(t.Context(), url.Values{"match[]": {`{i="7"}`}}))
	delete(model, client.Key(rows[7].Labels))

	name, err := cl.Snapshot(t.Context())
	require.NoError(t, err)
	later := first
	later.Start += 600_000
	require.NoError(t, cl.Write(t.Context(), later.Make(2)))
	second, err := cl.Snapshot(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, name, second)

	for _, n := range c.Nodes {
		got := openSnapshot(t, filepath.Join(n.Dir, "snapshots", name))
		require.Empty(t, client.Diff(model, got, 10), "snapshot of %s", n.Name)
	}
	fill.Merge(model, later.Make(2))
	for _, n := range c.Nodes {
		got := openSnapshot(t, filepath.Join(n.Dir, "snapshots", second))
		require.Empty(t, client.Diff(model, got, 10), "second snapshot of %s", n.Name)
	}
}

// openSnapshot reads a copy of a snapshot by Prometheus's own library, which wants to write into what it opens.
func openSnapshot(t *testing.T, dir string) client.Data {
	t.Helper()
	clone := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.CopyFS(clone, os.DirFS(dir)))
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = 0
	db, err := tsdb.Open(clone, slog.New(slog.DiscardHandler), nil, opts, nil)
	require.NoError(t, err)
	defer db.Close()
	q, err := db.Querier(0, math.MaxInt64)
	require.NoError(t, err)
	defer q.Close()
	data := client.Data{}
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	for set.Next() {
		var ls []prompb.Label
		set.At().Labels().Range(func(l labels.Label) { ls = append(ls, prompb.Label{Name: l.Name, Value: l.Value}) })
		key := client.Key(ls)
		it := set.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			ts, v := it.At()
			data[key] = append(data[key], client.Sample{T: ts, Bits: math.Float64bits(v)})
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return data
}
