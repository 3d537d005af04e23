// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package damage_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
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

// kinds are the files that a node keeps, and what it is to say about a flipped bit in each.
var kinds = []struct {
	name, pattern string
	place         place
	says          string // in a log line; "" where the bit is of no consequence, as the name tells
	names         string // what the line names, relative to the data directory; "" is the file itself
	aside         string // pattern of what is set aside, and got back from the others or the snapshot before
}{
	{"log, before the snapshot", segments, longest(false), cutOff, "raft/wal", ""},
	{"log, after the snapshot", segments, longest(true), setAside, "raft/wal", "raft/wal.damaged-*"},
	{"log, tail", segments, last, setAside, "raft/wal", "raft/wal.damaged-*"},
	{"log's meta data", "raft/wal/wal-meta.db", share(0.004), setAside, "", "raft/wal.damaged-*"},
	{"log's end", "raft/log-end", offset(7), "The mark of the log's end cannot be read and is ignored", "", ""},
	{"vote", "raft/stable.db", term, setAside, "", "raft/stable.db.damaged-*"},
	{"vote, meta page", "raft/stable.db", share(0.004), setAside, "", "raft/stable.db.damaged-*"},
	{"vote, a page that nobody reads", "raft/stable.db", free, "", "", ""},
	{"node id", "raft/node-id", offset(0), "The file with the node id is damaged and is written anew", "", ""},
	{"addresses", "raft/seen.json", offset(0), "Cannot read where the other nodes were", "", ""},
	{"addresses, a port, that gossip corrects", "raft/seen.json", port, "", "", ""},
	{"snapshot, meta data", "snapshots-raft/*/meta.json", share(0.5), snapshotAside, "", snapshots},
	{"snapshot, manifest", "snapshots-raft/*/data/manifest.json", share(0.5), snapshotAside, "", snapshots},
	{"block, chunks", "snapshots-raft/*/data/*/0*/chunks/000001", share(0.5), snapshotAside, "", snapshots},
	{"block, index", "snapshots-raft/*/data/*/0*/index", share(0.5), snapshotAside, "", snapshots},
	{"snapshot, tables", "snapshots-raft/*/data/state", share(0.5), snapshotAside, "", snapshots},
	{"block, meta data", "snapshots-raft/*/data/*/0*/meta.json", share(0.5), snapshotAside, "", snapshots},
	{"block, tombstones", "snapshots-raft/*/data/*/0*/tombstones", share(0.5), snapshotAside, "", snapshots},
}

const (
	segments  = "raft/wal/0*.wal"
	snapshots = "snapshots-raft/*.damaged"

	cutOff        = "Damage in the part of the Raft log that a snapshot replaces; it is cut off"
	setAside      = "Set aside a damaged part of the Raft state"
	snapshotAside = "Set aside a damaged Raft snapshot"
)

// TestFlippedBit flips a bit in each kind of file of a node that was killed: it comes back by itself with all data, tells
// what was damaged, and keeps what it has replaced.
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
			before, mark := match(t, n, k.aside), logSize(t, n)
			file := flip(t, n, k.pattern, k.place)
			if k.names != "" {
				file = filepath.Join(n.Dir, k.names)
			}
			require.NoError(t, n.Start())
			watch(t, n, l)
			supervise(t, n)
			awaitMetric(t, n, "deucalion_cluster_recovering", 0)
			if k.says != "" {
				awaitLine(t, n, mark, k.says, file)
			}
			requireAside(t, n, k.aside, before)
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

// requireAside insists that there is more of a pattern than before, and that it counts as a repair. Without a
// pattern nothing may have been repaired.
func requireAside(t *testing.T, n *local.Server, pattern string, before []string) {
	t.Helper()
	heals, err := sum(t.Context(), n, "deucalion_cluster_heals_total")
	require.NoError(t, err)
	if pattern == "" {
		require.Zero(t, heals)
		return
	}
	require.Equal(t, 1.0, heals)
	added := slices.DeleteFunc(match(t, n, pattern), func(name string) bool { return slices.Contains(before, name) })
	require.NotEmpty(t, added, "new in %s", pattern)
}

// match lists the files of n that a pattern matches.
func match(t *testing.T, n *local.Server, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(n.Dir, pattern))
	require.NoError(t, err)
	return names
}

// newestSnapshot is the log index of n's newest good Raft snapshot.
func newestSnapshot(t *testing.T, n *local.Server) (newest uint64) {
	t.Helper()
	for _, name := range match(t, n, "snapshots-raft/*-*-*") {
		var term, index, msec uint64
		if _, err := fmt.Sscanf(filepath.Base(name), "%d-%d-%d", &term, &index, &msec); err == nil && !strings.Contains(name, ".damaged") {
			newest = max(newest, index)
		}
	}
	return newest
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

// flip changes one bit of the newest file that pattern names, and returns its name.
func flip(t *testing.T, n *local.Server, pattern string, at place) string {
	t.Helper()
	names := slices.DeleteFunc(match(t, n, pattern), func(name string) bool {
		fi, err := os.Stat(name)
		return err != nil || fi.Size() == 0 || strings.Contains(name, ".damaged")
	})
	require.NotEmpty(t, names, pattern)
	name := slices.MaxFunc(names, func(a, b string) int { // by the number in it that counts up, not by the letters
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	})
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	i := at(t, n, b)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte{b[i] ^ 4}, int64(i)) // in place: blocks are hard links
	require.NoError(t, err)
	t.Logf("flipped a bit of %s at %d of %d", name, i, len(b))
	return name
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
