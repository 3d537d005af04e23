// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

// The numbers are on disk and on the wire.
func TestLevels(t *testing.T) {
	require.EqualValues(t, 4, Level)
	for k, want := range map[kind]uint32{
		0: 0, kindAppend: 1, kindDelete: 1, kindClean: 1, kindCutoff: 1, kindUserSnapshot: 1, kindNoop: 1, kindSettings: 1,
		kindDigest: 2, kindShipped: 3, kindImport: 4, kindImport + 1: 0, 255: 0,
	} {
		require.Equal(t, want, k.level(), k)
		require.Equal(t, want, EntryLevel([]byte{entryVersion, byte(k)}))
	}
	require.Zero(t, EntryLevel(nil))
	require.LessOrEqual(t, kindLevels[len(kindLevels)-1], uint32(Level))
}

func olderFSM(t *testing.T, level uint32) *FSM {
	return openFSM(t, Options{Dir: t.TempDir(), Storage: storage.Options{Manual: true}, Level: level}, "")
}

// An older binary stops at what it does not know, with a reason.
func TestOlderLevelStops(t *testing.T) {
	for name, entry := range map[string][]byte{
		"kind":     EncodeDigest(Digest{ID: "a"}),
		"settings": EncodeSettings(Settings{MinVersion: 2}),
	} {
		f := olderFSM(t, 1)
		r := f.Apply(1, 1, entry)
		require.Contains(t, r.Err, "upgrade", name)
		require.Error(t, f.Err(), name)
		now := olderFSM(t, 2)
		require.Empty(t, now.Apply(1, 1, entry).Err, name)
	}
	f := olderFSM(t, 1)
	f.Apply(1, 1, EncodeSettings(Settings{MinVersion: 2}))
	require.ErrorIs(t, f.Err(), ErrNewer)
	require.ErrorContains(t, f.Err(), "needs version level 2, this binary knows 1: upgrade")
	require.Zero(t, f.Settings().MinVersion)
}

// Neither does it take a snapshot of a cluster that has gone on.
func TestOlderLevelRefusesSnapshot(t *testing.T) {
	f, l := alone(t)
	l.apply(t, EncodeSettings(Settings{MinVersion: 2, ClusterID: "c"}))
	put(t, f, l, name("x"), base, 1)
	dir := persist(t, f)

	_, err := Open(Options{Dir: t.TempDir(), Level: 1}, dir)
	require.ErrorIs(t, err, ErrNewer)
	require.ErrorContains(t, err, "needs version level 2, this binary knows 1: upgrade")

	g := olderFSM(t, 1)
	require.ErrorIs(t, g.Restore(dir), ErrNewer)
	require.ErrorIs(t, g.Err(), ErrNewer, "a running node stops")

	h := newFSM(t, dir)
	require.Equal(t, dump(t, f), dump(t, h), "the snapshot is unharmed")
}
