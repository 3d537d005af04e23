// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// deadline bounds every wait of a test: far above what any takes.
const deadline = 30 * time.Second

// base is the start of a partition.
const base = int64(230_000) * partition

// tester is a store with its applier.
type tester struct {
	*Store
	t    testing.TB
	refs map[string]*Ref
	maxT int64
}

func openStore(t testing.TB, o Options) *tester {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "live")
	}
	s, err := Open(o)
	require.NoError(t, err)
	x := &tester{Store: s, t: t, refs: map[string]*Ref{}, maxT: NoTime}
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return x
}

// manual is a store that freezes, flushes and merges when it is told to.
func manual(t testing.TB) *tester {
	return openStore(t, Options{Manual: true, FreezeSpan: 1000 * time.Hour})
}

func series(name string) labels.Labels {
	return labels.FromStrings(model.MetricNameLabel, name, "job", "test")
}

// add appends one float sample and may freeze, as the state machine does.
func (x *tester) add(name string, ts int64, v float64) {
	x.t.Helper()
	require.NoError(x.t, x.tryAdd(name, ts, v))
}

func (x *tester) tryAdd(name string, ts int64, v float64) error {
	if x.refs[name] == nil {
		x.refs[name] = &Ref{}
	}
	a := x.Appender()
	if err := a.Append(x.refs[name], series(name), Sample{T: ts, V: v}); err != nil {
		return err
	}
	if err := a.Commit(); err != nil {
		return err
	}
	x.maxT = max(x.maxT, ts)
	return x.MaybeFreeze(x.maxT)
}

// fill adds n samples a minute apart.
func (x *tester) fill(name string, from int64, n int) {
	x.t.Helper()
	for i := range n {
		x.add(name, from+int64(i)*60_000, float64(i))
	}
}

func (x *tester) freeze() { require.NoError(x.t, x.Freeze()) }

func (x *tester) flush() {
	x.t.Helper()
	for {
		worked, err := x.FlushOne()
		require.NoError(x.t, err)
		if !worked {
			return
		}
	}
}

func (x *tester) freezeFlush() { x.freeze(); x.flush() }

func (x *tester) mergeAll() (n int) {
	x.t.Helper()
	for ; ; n++ {
		worked, err := x.MergeOne()
		require.NoError(x.t, err)
		if !worked {
			return n
		}
	}
}

func named(pattern string) []*labels.Matcher {
	return []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, pattern)}
}

func (x *tester) delete(pattern string, mint, maxt int64) {
	x.t.Helper()
	require.NoError(x.t, x.Delete(mint, maxt, named(pattern)))
}

// dump lists what a querier finds, times counted from base.
func dump(t testing.TB, q promstorage.Querier) string {
	t.Helper()
	ss := q.Select(t.Context(), true, nil, named(".+")...)
	var sb strings.Builder
	for ss.Next() {
		line := ""
		it := ss.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			ts, v := it.At()
			line += fmt.Sprintf(" %d=%v", (ts-base)/60_000, v)
		}
		require.NoError(t, it.Err())
		if line != "" {
			sb.WriteString(ss.At().Labels().Get(model.MetricNameLabel) + ":" + line + "\n")
		}
	}
	require.NoError(t, ss.Err())
	return sb.String()
}

func (x *tester) all() string { return x.between(math.MinInt64, math.MaxInt64) }

func (x *tester) between(mint, maxt int64) string {
	x.t.Helper()
	q, err := x.Querier(mint, maxt)
	require.NoError(x.t, err)
	defer q.Close()
	return dump(x.t, q)
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, deadline, 2*time.Millisecond, what)
}

// live lists the directories below the live one.
func (x *tester) live() []string {
	es, err := os.ReadDir(x.opts.Dir)
	require.NoError(x.t, err)
	var out []string
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

// noLeftovers waits until nothing but the active memtable, the spare one if
// there is one, and the blocks directory are there, and the latter has just the
// installed blocks.
func (x *tester) noLeftovers() {
	x.t.Helper()
	eventually(x.t, "leftovers in the live directory", func() bool {
		want := 2
		x.mu.RLock()
		if x.spare != nil {
			want++
		}
		x.mu.RUnlock()
		return len(x.live()) == want && len(x.blockDirs()) == len(x.BlockMetas())
	})
}

func (x *tester) blockDirs() []string {
	x.mu.RLock()
	dir := x.blocksDir
	x.mu.RUnlock()
	es, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(x.t, err)
	return es
}

// fileWith returns a file below dir that holds text, or "".
func fileWith(t testing.TB, dir, text string) (found string) {
	t.Helper()
	require.NoError(t, walkFiles(dir, func(rel string, _ int64) error {
		b, err := os.ReadFile(filepath.Join(dir, rel))
		if os.IsNotExist(err) {
			return nil // a block in the middle of its removal
		}
		if bytes.Contains(b, []byte(text)) {
			found = rel
		}
		return err
	}))
	return found
}

func (x *tester) tombstones() (n uint64) {
	for _, m := range x.BlockMetas() {
		n += m.Stats.NumTombstones
	}
	return n
}
