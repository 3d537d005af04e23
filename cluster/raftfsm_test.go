// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
)

// entryRecorder is a fsm.Proposer that only keeps what it is asked to propose.
type entryRecorder struct{ entries [][]byte }

func (r *entryRecorder) Propose(_ context.Context, entry []byte) (fsm.Result, error) {
	r.entries = append(r.entries, entry)
	return fsm.Result{}, nil
}

func (r *entryRecorder) ReadIndex(context.Context) (uint64, error) { return 0, nil }

// Whoever waits for an index and then reads finds everything up to it. The batches are large, so that somebody who is
// let through before they are applied reads long before the end.
func TestIndexIsPublishedAfterItsEntries(t *testing.T) {
	f, err := fsm.Open(fsm.Options{Dir: t.TempDir()}, "")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	a := &raftFSM{fsm: f}
	const batches, entries, series = 5, 16, 800
	index, written := uint64(0), 0
	for range batches {
		var logs []*raft.Log
		for range entries {
			var r entryRecorder
			b := f.NewBatch()
			for range series {
				b.Series(nil, labels.FromStrings("__name__", "m", "i", fmt.Sprint(written)))
				b.Float(1000, 1)
				written++
			}
			_, err := b.Commit(t.Context(), &r)
			require.NoError(t, err)
			b.Release()
			require.Len(t, r.entries, 1)
			index++
			logs = append(logs, &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: r.entries[0]})
		}
		applied := make(chan []any)
		go func() { applied <- a.ApplyBatch(logs) }()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		require.NoError(t, f.Wait(ctx, index))
		cancel()
		found := countSeries(t, f)
		for _, r := range <-applied {
			require.Empty(t, r.(fsm.Result).Err)
		}
		require.Equal(t, written, found, "index %d", index)
	}
}

func countSeries(t *testing.T, f *fsm.FSM) (n int) {
	t.Helper()
	q, err := f.Querier(0, 2000)
	require.NoError(t, err)
	defer q.Close()
	set := q.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
	for set.Next() {
		n++
	}
	require.NoError(t, set.Err())
	return n
}
