// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

// deadline bounds every wait of a test: far above what any takes.
const deadline = 30 * time.Second

// base is the time of the first sample in most tests, at the start of a 2 h
// partition.
const base = int64(230_000) * 7_200_000

// newFSM opens a state machine whose storage does nothing on its own.
func newFSM(t testing.TB, from string) *FSM {
	return openFSM(t, Options{Dir: t.TempDir(), Storage: storage.Options{Manual: true}}, from)
}

func openFSM(t testing.TB, o Options, from string) *FSM {
	t.Helper()
	f, err := Open(o, from)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// raftLog is a Proposer without Raft: a log that the leader has applied, and that
// followers apply when they are told to.
type raftLog struct {
	leader *FSM

	// mu protects the following.
	mu      sync.Mutex
	entries [][]byte
	reads   int
	onRead  func()                   // runs in ReadIndex, before the answer
	refuse  error                    // of Propose, instead of doing it
	before  func(n int, e []byte)    // runs before the n-th entry is applied; mu is held
	seen    func(e []byte, r Result) // runs after an entry is applied; mu is held
}

func newLog(leader *FSM) *raftLog { return &raftLog{leader: leader} }

func (l *raftLog) Propose(_ context.Context, entry []byte) (Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return Result{}, l.refuse
	}
	if l.before != nil {
		l.before(len(l.entries), entry)
	}
	return l.applyLocked(entry), nil
}

func (l *raftLog) applyLocked(entry []byte) Result {
	l.entries = append(l.entries, entry)
	i := uint64(len(l.entries))
	r := l.leader.Apply(i, 1, entry)
	l.leader.Publish(i, 1)
	if l.seen != nil {
		l.seen(entry, r)
	}
	return r
}

func (l *raftLog) ReadIndex(context.Context) (uint64, error) {
	l.mu.Lock()
	l.reads++
	n, f := uint64(len(l.entries)), l.onRead
	l.mu.Unlock()
	if f != nil {
		f()
	}
	return n, nil
}

func (l *raftLog) propose(t testing.TB, entry []byte) Result {
	t.Helper()
	r, err := l.Propose(t.Context(), entry)
	require.NoError(t, err)
	return r
}

// apply appends an entry that must be accepted.
func (l *raftLog) apply(t testing.TB, entry []byte) Result {
	t.Helper()
	r := l.propose(t, entry)
	require.Empty(t, r.Err)
	return r
}

func (l *raftLog) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

// catchUp applies to a follower what it has not applied yet.
func (l *raftLog) catchUp(f *FSM) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, _ := f.Applied(); i < uint64(len(l.entries)); i++ {
		f.Apply(i+1, 1, l.entries[i])
		f.Publish(i+1, 1)
	}
}

// commit fills a batch of f and commits it to l.
func commit(t testing.TB, f *FSM, l *raftLog, fill func(*Batch)) Outcome {
	t.Helper()
	b := f.NewBatch()
	defer b.Release()
	fill(b)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	out, err := b.Commit(ctx, l)
	require.NoError(t, err)
	return out
}

// put commits one float sample.
func put(t testing.TB, f *FSM, l *raftLog, ls labels.Labels, ts int64, v float64) Outcome {
	t.Helper()
	return commit(t, f, l, func(b *Batch) {
		b.Series(nil, ls)
		b.Float(ts, v)
	})
}

func name(s string) labels.Labels { return labels.FromStrings(model.MetricNameLabel, s) }

func equals(name, value string) []*labels.Matcher {
	return []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, name, value)}
}

// dump lists all samples of f.
func dump(t testing.TB, q promstorage.Queryable) string {
	t.Helper()
	qr, err := q.Querier(-1<<50, 1<<50)
	require.NoError(t, err)
	defer qr.Close()
	ss := qr.Select(t.Context(), true, nil, everything)
	var sb strings.Builder
	for ss.Next() {
		it, line := ss.At().Iterator(nil), ""
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			line += sampleText(it, vt)
		}
		require.NoError(t, it.Err())
		if line != "" {
			fmt.Fprintf(&sb, "%s:%s\n", ss.At().Labels(), line)
		}
	}
	require.NoError(t, ss.Err())
	return sb.String()
}

// floatsOf lists the float samples of one series as time=value, times counted
// from base.
func floatsOf(t testing.TB, f *FSM, ls labels.Labels) string {
	t.Helper()
	qr, err := f.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer qr.Close()
	ss := qr.Select(t.Context(), true, nil, equals(model.MetricNameLabel, ls.Get(model.MetricNameLabel))...)
	var out []string
	for ss.Next() {
		if !labels.Equal(ss.At().Labels(), ls) {
			continue
		}
		for it := ss.At().Iterator(nil); it.Next() == chunkenc.ValFloat; {
			ts, v := it.At()
			out = append(out, fmt.Sprintf("%d=%v", ts-base, v))
		}
	}
	require.NoError(t, ss.Err())
	return strings.Join(out, " ")
}

// seriesKey is the key of labels, see Batch.SeriesByKey.
func seriesKey(ls labels.Labels) []byte {
	var key []byte
	ls.Range(func(l labels.Label) {
		p := appendString([]byte{0x0a}, l.Name)
		p = appendString(append(p, 0x12), l.Value)
		key = appendString(append(key, 0x0a), string(p))
	})
	return key
}
