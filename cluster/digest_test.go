// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/internal/filetest"
)

var everything = []fsm.TimeRange{{Mint: math.MinInt64, Maxt: math.MaxInt64}}

func (n *testNode) digest(ranges []fsm.TimeRange) *cluster.DigestReport {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 60*time.Second)
	defer cancel()
	var r *cluster.DigestReport
	require.Eventually(n.t, func() bool { // not before all members have told their level
		var err error
		r, err = n.Digest(ctx, ranges)
		if err != nil {
			require.ErrorIs(n.t, err, cluster.ErrLevel)
		}
		return err == nil
	}, 60*time.Second, 50*time.Millisecond)
	return r
}

// digestOfAll waits until all members have a result: others may not know yet that one has come back, or that one is still
// busy with the digest which it has missed.
func (n *testNode) digestOfAll(ranges []fsm.TimeRange) (r *cluster.DigestReport) {
	n.t.Helper()
	n.eventually("a digest of all", func() bool {
		r = n.digest(ranges)
		return !slices.ContainsFunc(r.Nodes, func(d cluster.NodeDigest) bool { return d.Result == nil || d.Result.Err != "" })
	})
	return r
}

// statusOf is the digest that node id shows, as any node sees it.
func (n *testNode) statusOf(id string) *cluster.DigestStatus {
	for _, s := range n.Nodes(n.t.Context()) {
		if s.ID == id {
			return s.Digest
		}
	}
	return nil
}

// awaitStatus is statusOf, once there is one: a busy machine keeps a node from answering in time.
func (n *testNode) awaitStatus(id string) (s *cluster.DigestStatus) {
	n.t.Helper()
	n.eventually("the digest of "+id, func() bool { s = n.statusOf(id); return s != nil })
	return s
}

// One value of one node changes on disk, with all checksums right: only a comparison of content can find it, and it
// names the node.
func TestDigestFindsOneChangedValue(t *testing.T) {
	t.Parallel()
	// The damage done below would end the process, which would repair it.
	nodes := startCluster(t, func(c *cluster.Config) { c.OnFatal = func(error) {} })
	nodes[0].writeMany(0, 40)
	for _, n := range nodes {
		r := n.digest(everything)
		require.Equal(t, cluster.DigestEqual, r.Result, "%+v", r)
		require.Len(t, r.Nodes, 3)
		require.EqualValues(t, 40, r.Nodes[0].Result.Ranges[0].Samples)
	}
	leader, rest := leaderOf(t, nodes)
	bad, good := rest[0], rest[1]
	require.NoError(t, bad.Snapshot(t.Context()))
	bad.stop()
	changeOneValue(t, bad.cfg.Dir, "17", 17)
	bad.start()
	bad.waitReady()
	bad.waitCount(40)

	r := good.digestOfAll(everything)
	require.Equal(t, cluster.DigestMismatch, r.Result, "%+v %+v %+v", *r.Nodes[0].Result, *r.Nodes[1].Result, *r.Nodes[2].Result)
	require.Equal(t, []string{bad.ID()}, r.Differing)
	for _, n := range nodes {
		s := leader.awaitStatus(n.ID())
		require.Equal(t, r.Index, s.Index)
		require.Equal(t, cluster.DigestMismatch, s.Result)
		require.Equal(t, n == bad, s.Differing)
		require.EqualValues(t, 1, n.metric("deucalion_cluster_digest_mismatch"), n.ID())
	}
	require.Equal(t, cluster.DigestEqual, good.digest([]fsm.TimeRange{{Mint: 0, Maxt: 1_000_016}}).Result, "the other samples are as they were")
	require.EqualValues(t, 1, good.metric("deucalion_cluster_digest_mismatch"), "the finding stays")
	require.Equal(t, cluster.DigestEqual, leader.awaitStatus(bad.ID()).Result)

	// A chunk whose checksum is wrong is another finding.
	damageChunks(t, bad.cfg.Dir)
	r = leader.digest(everything)
	require.Equal(t, cluster.DigestError, r.Result)
	require.Empty(t, r.Differing)
	require.True(t, leader.awaitStatus(bad.ID()).Differing)
	require.False(t, leader.awaitStatus(good.ID()).Differing)

	bad.crash()
	r = leader.digest(everything)
	require.Equal(t, cluster.DigestIncomplete, r.Result)
	require.EqualValues(t, 1, leader.metric("deucalion_cluster_digest_mismatch"), "nobody has seen it healed")
}

// The duty runs by itself, on the leader, and covers what is complete.
func TestDigestDuty(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, func(c *cluster.Config) { c.DigestInterval = 200 * time.Millisecond })
	const hour = 3_600_000
	b := nodes[0].fsm.NewBatch()
	for i := range int64(60) {
		b.Series(nil, labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)))
		for at := int64(0); at < 60*hour; at += 2 * hour {
			b.Float(400_000*hour+at+i, float64(i))
		}
	}
	_, err := b.Commit(t.Context(), nodes[0])
	require.NoError(t, err)
	b.Release()
	for _, n := range nodes {
		require.Eventually(t, func() bool {
			s := n.statusOf(n.ID())
			return s != nil && s.Result == cluster.DigestEqual
		}, 30*time.Second, 20*time.Millisecond, "%s has heard of a digest", n.ID())
		require.Zero(t, n.metric("deucalion_cluster_digest_mismatch"))
	}
	require.Eventually(t, func() bool {
		total := 0.0
		for _, n := range nodes {
			total += n.metric("deucalion_cluster_digests_total")
		}
		return total > 5
	}, 30*time.Second, 20*time.Millisecond)
}

// An old member holds new kinds of entries up; once it is upgraded they flow, and then an old binary is refused.
func TestLevels(t *testing.T) {
	t.Parallel()
	nodes := startClusterAt(t, func(i int) uint32 { return []uint32{0, 0, 1}[i] })
	old := nodes[2]
	leader, _ := leaderOf(t, nodes)
	leader.mustWrite(0)
	require.Eventually(t, func() bool { return nodes[0].fsm.Settings().MinVersion == 1 }, 60*time.Second, 20*time.Millisecond)
	for _, n := range nodes {
		_, err := n.Digest(t.Context(), everything)
		require.ErrorIs(t, err, cluster.ErrLevel)
		require.ErrorContains(t, err, "needs version level 2, the cluster is at 1: node n2 (version v1) knows level 1 and must be upgraded")
	}
	require.NoError(t, old.fsm.Err())

	old.stop()
	old.level = 0
	old.start()
	old.waitReady()
	leader.transfer("") // a new leader looks at once
	require.Eventually(t, func() bool { return old.fsm.Settings().MinVersion == fsm.Level }, 60*time.Second, 20*time.Millisecond)
	require.Equal(t, cluster.DigestEqual, leader.digestOfAll(everything).Result)
	require.NoError(t, old.Snapshot(t.Context()))
	old.stop()

	// Downgraded: refused with its snapshot.
	s, err := cluster.OpenSnapshots(old.cfg.Dir, old.cfg.Logger)
	require.NoError(t, err)
	from, ok := s.Latest()
	require.True(t, ok)
	_, err = fsm.Open(fsm.Options{Dir: old.cfg.Dir, Level: 1}, from)
	require.ErrorIs(t, err, fsm.ErrNewer)

	// A new node of the old version is not let in.
	late := cluster.Config{NodeID: "late", BootstrapExpect: 3, Peers: []string{leader.GossipAddress()}}
	n := startNodeAt(t, late, 1)
	require.Never(t, func() bool { return len(leader.Nodes(t.Context())) > 3 }, 3*time.Second, 100*time.Millisecond)
	require.Error(t, n.Ready())
}

// changeOneValue gives the sample of series i another value in the newest snapshot, and puts the checksums right.
func changeOneValue(t *testing.T, dir, i string, value float64) {
	t.Helper()
	changed := 0
	for _, manifest := range manifests(t, dir) {
		block := filepath.Join(filepath.Dir(manifest), "blocks")
		_ = filepath.WalkDir(block, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "index" && rewriteValue(t, filepath.Dir(p), i, value) {
				changed++
			}
			return err
		})
		sealSnapshot(t, manifest)
	}
	require.NotZero(t, changed)
}

func manifests(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(filepath.Join(dir, "snapshots-raft"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "manifest.json" {
			out = append(out, p)
		}
		return err
	}))
	require.NotEmpty(t, out)
	return out
}

// rewriteValue looks the series up with TSDB's own reader and writes into its only sample.
func rewriteValue(t *testing.T, dir, i string, value float64) bool {
	b, err := tsdb.OpenBlock(nil, dir, nil, nil)
	require.NoError(t, err)
	defer b.Close()
	ir, err := b.Index()
	require.NoError(t, err)
	defer ir.Close()
	p, err := ir.Postings(t.Context(), "i", i)
	require.NoError(t, err)
	var sb labels.ScratchBuilder
	var metas []chunks.Meta
	for p.Next() {
		require.NoError(t, ir.Series(p.At(), &sb, &metas))
		require.Len(t, metas, 1)
		file, offset := chunks.BlockChunkRef(metas[0].Ref).Unpack()
		rewriteChunk(t, filepath.Join(dir, "chunks", fmt.Sprintf("%06d", file+1)), offset, value)
		return true
	}
	require.NoError(t, p.Err())
	return false
}

// rewriteChunk: length, encoding, data (number of samples, first time, first value, ...), CRC-32C.
func rewriteChunk(t *testing.T, name string, offset int, value float64) {
	f, err := os.ReadFile(name)
	require.NoError(t, err)
	length, n := binary.Uvarint(f[offset:])
	body := f[offset+n : offset+n+1+int(length)]
	require.EqualValues(t, chunkenc.EncXOR, body[0])
	require.EqualValues(t, 1, binary.BigEndian.Uint16(body[1:]), "samples")
	_, k := binary.Varint(body[3:])
	v := body[3+k:]
	was, changed := binary.BigEndian.Uint64(v), math.Float64bits(value)^1
	if was == changed {
		return // a link of another snapshot to the same file
	}
	require.Equal(t, value, math.Float64frombits(was))
	binary.BigEndian.PutUint64(v, changed)
	binary.BigEndian.PutUint32(f[offset+n+1+int(length):], crc32.Checksum(body, castagnoli))
	require.NoError(t, os.WriteFile(name, f, 0o666))
}

// sealSnapshot brings the checksums and sizes in the manifest of a snapshot up to date.
func sealSnapshot(t *testing.T, manifest string) {
	t.Helper()
	data := filepath.Dir(manifest)
	sum := func(file map[string]any, parts ...string) {
		content, err := os.ReadFile(filepath.Join(append([]string{data}, parts...)...))
		require.NoError(t, err)
		file["size"] = len(content)
		if file["crc32c"] != nil {
			file["crc32c"] = crc32.Checksum(content, castagnoli)
		}
	}
	filetest.Reseal(t, manifest, func(m map[string]any) {
		for _, x := range m["blocks"].([]any) {
			block := x.(map[string]any)
			for _, y := range block["files"].([]any) {
				file := y.(map[string]any)
				sum(file, "blocks", block["ulid"].(string), file["path"].(string))
			}
		}
	})
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// damageChunks flips a bit in every chunk file that the running node reads.
func damageChunks(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "live", "blocks-*", "*", "chunks", "*"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		require.NoError(t, err)
		fi, err := f.Stat()
		require.NoError(t, err)
		var b [1]byte
		_, err = f.ReadAt(b[:], fi.Size()-5)
		require.NoError(t, err)
		b[0] ^= 1
		_, err = f.WriteAt(b[:], fi.Size()-5)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
}
