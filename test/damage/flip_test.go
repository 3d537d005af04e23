// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package damage_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/ledger"
	"github.com/deucaliondb/deucalion/test/local"
)

// kinds are the files that a node keeps, and places in what is not zero of them.
var kinds = []struct {
	name, pattern string
	place         float64
	heals         bool // the others must have been asked
}{
	{"log, middle", "raft/wal/0*.wal", 0.5, false}, // before or after the snapshot
	{"log, tail", "raft/wal/0*.wal", 0.999, true},
	{"log's meta data", "raft/wal/wal-meta.db", 0.004, true},
	{"log's end", "raft/log-end", 0.5, false},
	{"vote, meta page", "raft/stable.db", 0.004, true},
	{"vote, middle", "raft/stable.db", 0.5, false},
	{"vote, end", "raft/stable.db", 0.99, false},
	{"node id", "raft/node-id", 0.5, false},
	{"addresses", "raft/seen.json", 0.5, false},
	{"snapshot, list of files", "snapshots-raft/*/meta.json", 0.5, false},
	{"snapshot, manifest", "snapshots-raft/*/data/manifest.json", 0.5, false},
	{"snapshot, tables", "snapshots-raft/*/data/state", 0.5, false},
	{"block, index", "snapshots-raft/*/data/*/0*/index", 0.5, false},
	{"block, chunks", "snapshots-raft/*/data/*/0*/chunks/000001", 0.5, false},
	{"block, meta data", "snapshots-raft/*/data/*/0*/meta.json", 0.5, false},
	{"block, tombstones", "snapshots-raft/*/data/*/0*/tombstones", 0.5, false},
}

// TestFlippedBit flips a bit in each kind of file of a node that was killed: it comes back by itself with all data.
func TestFlippedBit(t *testing.T) {
	c := harness.New(t)
	l := ledger.New("flip")
	w := load(t, c, l)
	for i, k := range kinds {
		if testing.Short() && i%4 != 1 {
			continue
		}
		ok := t.Run(k.name, func(t *testing.T) {
			n := c.Nodes[i%3]
			progress(t, l, 20)
			require.NoError(t, n.Stop()) // makes a snapshot
			harness.Start(t, c)
			progress(t, l, 20)
			w.Pause()
			defer w.Resume()
			defer repair(t, c, n)
			awaitMark(t, n)
			require.NoError(t, n.Kill())
			flip(t, n, k.pattern, k.place)
			require.NoError(t, n.Start())
			watch(t, n, l)
			supervise(t, n)
			if k.heals {
				heals, err := sum(t.Context(), n, "deucalion_cluster_heals_total")
				require.NoError(t, err)
				require.Equal(t, 1.0, heals)
			}
			awaitMetric(t, n, "deucalion_cluster_recovering", 0)
			check(t, c, l)
		})
		if !ok && !running(c) {
			t.FailNow()
		}
	}
	w.Finish()
	check(t, c, l)
	t.Log(l.Summary())
}

// awaitMark waits until the mark of the log's end, which is written once a second, names the last entry. Nobody may be
// writing.
func awaitMark(t *testing.T, n *local.Server) {
	t.Helper()
	last, err := sum(t.Context(), n, "deucalion_raft_last_log_index")
	require.NoError(t, err)
	harness.Await(t, 30*time.Second, "the mark of the log's end", func(context.Context) error {
		b, err := os.ReadFile(filepath.Join(n.Dir, "raft", "log-end"))
		if err == nil && (len(b) < 8 || binary.BigEndian.Uint64(b) < uint64(last)) {
			err = errNotYet
		}
		return err
	})
}

// repair keeps one failure from being that of all later cases too.
func repair(t *testing.T, c *local.Cluster, n *local.Server) {
	if !t.Failed() {
		return
	}
	require.NoError(t, n.Kill())
	require.NoError(t, os.RemoveAll(n.Dir))
	require.NoError(t, os.Mkdir(n.Dir, 0o755))
	harness.Start(t, c)
	awaitMetric(t, n, "deucalion_cluster_recovering", 0) // one at a time
}

func running(c *local.Cluster) bool {
	return !slices.ContainsFunc(c.Nodes, func(n *local.Server) bool { return !n.Running() })
}

// flip changes one bit of the newest file that pattern names.
func flip(t *testing.T, n *local.Server, pattern string, place float64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(n.Dir, pattern))
	require.NoError(t, err)
	names = slices.DeleteFunc(names, func(name string) bool {
		fi, err := os.Stat(name)
		return err != nil || fi.Size() == 0 || strings.Contains(name, ".damaged")
	})
	require.NotEmpty(t, names, pattern)
	name := slices.MaxFunc(names, func(a, b string) int { // by the number in it that counts up, not by the letters
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	})
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	var written []int
	for i, x := range b {
		if x != 0 {
			written = append(written, i)
		}
	}
	at := written[int(place*float64(len(written)-1))]
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte{b[at] ^ 4}, int64(at)) // in place: blocks are hard links
	require.NoError(t, err)
	t.Logf("flipped a bit of %s at %d of %d", name, at, len(b))
}

// TestWipe empties the data directory of a node under load: it comes back as the voter that it was.
func TestWipe(t *testing.T) {
	c := harness.New(t)
	l := ledger.New("wipe")
	w := load(t, c, l)
	for range 2 {
		for _, n := range []*local.Server{c.Followers(harness.Leader(t, c))[0], harness.Leader(t, c)} {
			progress(t, l, 50)
			require.NoError(t, n.Kill())
			require.NoError(t, os.RemoveAll(n.Dir))
			require.NoError(t, os.Mkdir(n.Dir, 0o755))
			require.NoError(t, n.Start())
			harness.Start(t, c)
			progress(t, l, 20)
			awaitMetric(t, n, "deucalion_cluster_recovering", 0)
		}
		if testing.Short() {
			break
		}
	}
	w.Finish()
	check(t, c, l)
	data, err := read(t.Context(), c.Nodes[0], client.Linearizable)
	require.NoError(t, err)
	require.NotZero(t, data.Len())
	t.Log(l.Summary())
}
