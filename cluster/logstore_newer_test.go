// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
)

// ofVersion makes of a sum of this version that of another one.
func ofVersion(version byte, b []byte) []byte {
	sum := newerSum(version, binary.BigEndian.Uint32(b[1:]))
	out := binary.BigEndian.AppendUint32([]byte{version}, sum)
	return append(out, b[sumBytes:]...)
}

// diskNode has what openDisk needs of a node in the data directory dir. It knows of others, so it heals what is damaged.
func diskNode(dir, kind string) *Node {
	return &Node{
		cfg:    Config{Dir: dir, LogStore: kind, LogSegmentBytes: 64 << 10, LogWriteTimeout: time.Minute, Peers: []string{"a:1"}},
		logger: discard, metrics: testMetrics(), snapshots: &SnapshotStore{}, amnesia: &amnesia{path: filepath.Join(dir, "raft", amnesiaFile)},
	}
}

// refusedAsNewer insists that a start ends with fsm.ErrNewer and sets nothing aside.
func refusedAsNewer(t *testing.T, data, kind, what string) {
	t.Helper()
	dir := filepath.Join(data, "raft")
	err := diskNode(data, kind).openDisk(dir, false)
	require.ErrorIs(t, err, fsm.ErrNewer)
	require.NotErrorIs(t, err, ErrDamaged)
	require.ErrorContains(t, err, what)
	aside, err := filepath.Glob(filepath.Join(dir, "*"+damagedSuffix+"*"))
	require.NoError(t, err)
	require.Empty(t, aside)
}

// An entry of a newer version is refused, and the log stays as it is; a version that is nothing but a flipped bit is
// damage like any other.
func TestNewerLogIsRefused(t *testing.T) {
	for _, kind := range []string{LogStoreWAL, LogStoreBoltDB} {
		for name, change := range map[string]func(ext []byte) []byte{
			"newer":   func(ext []byte) []byte { return ofVersion(sumVersion+1, ext) },
			"flipped": func(ext []byte) []byte { ext[0] ^= 2; return ext },
		} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				data := t.TempDir()
				dir := filepath.Join(data, "raft")
				s, err := openTestStores(t, dir, kind)
				require.NoError(t, err)
				fillStores(t, s, 5)
				l := entry(6)
				l.Extensions = change(binary.BigEndian.AppendUint32([]byte{sumVersion}, entrySum(l, nil)))
				require.NoError(t, s.base.logStore.StoreLog(l))
				require.NoError(t, s.Close())
				if name == "newer" {
					refusedAsNewer(t, data, kind, "entry 6")
				}
				s, err = openTestStores(t, dir, kind)
				require.NoError(t, err)
				last, err := s.log.LastIndex()
				require.NoError(t, err)
				require.Equal(t, uint64(6), last)
				if name == "flipped" {
					require.ErrorIs(t, s.verify(data), ErrDamaged)
				}
				require.NoError(t, s.Close())
			})
		}
	}
}

// Nor is a newer version's vote forgotten.
func TestNewerVoteIsRefused(t *testing.T) {
	data := t.TempDir()
	dir := filepath.Join(data, "raft")
	s, err := openTestStores(t, dir, LogStoreWAL)
	require.NoError(t, err)
	fillStores(t, s, 5)
	require.NoError(t, s.Close())
	b, err := openBolt(filepath.Join(dir, stableFile), partStable, nil)
	require.NoError(t, err)
	raw, err := b.Get(keyLastVoteCand)
	require.NoError(t, err)
	require.NoError(t, b.Set(keyLastVoteCand, ofVersion(sumVersion+1, raw)))
	require.NoError(t, b.Close())
	refusedAsNewer(t, data, LogStoreWAL, string(keyLastVoteCand))
}
