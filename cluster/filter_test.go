// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// send passes a request through f and returns the answer, or nil when it reaches Raft.
func send(t *testing.T, f *rpcFilter, in chan raft.RPC, command any) *raft.RPCResponse {
	t.Helper()
	answer := make(chan raft.RPCResponse, 1)
	in <- raft.RPC{Command: command, RespChan: answer}
	select {
	case <-f.out:
		return nil
	case r := <-answer:
		return &r
	case <-time.After(10 * time.Second):
		t.Fatal("no answer")
		return nil
	}
}

func testFilter(t *testing.T, a *amnesia, d *disk) (*rpcFilter, chan raft.RPC) {
	in := make(chan raft.RPC)
	f := newRPCFilter(in, a, d, func() uint64 { return 3 }, func() string { return "" })
	t.Cleanup(f.close)
	return f, in
}

func from(id string) raft.RPCHeader { return raft.RPCHeader{ID: []byte(id)} }

// A node that has lost its vote may have voted in any term: it must not let the leader of an earlier one commit.
func TestAmnesiaTakesNothingFromAnOldLeader(t *testing.T) {
	dir := t.TempDir()
	a, err := openAmnesia(dir, true, discard)
	require.NoError(t, err)
	f, in := testFilter(t, a, &disk{})
	entries := func(term uint64) *raft.AppendEntriesRequest {
		return &raft.AppendEntriesRequest{RPCHeader: from("a"), Term: term}
	}
	require.ErrorIs(t, send(t, f, in, entries(4)).Error, errAmnesiac, "nothing is known of terms")
	_, err = a.term(3)
	require.Error(t, err, "its word would confirm a leader")

	a.learn(5, "")
	r := send(t, f, in, entries(4)).Response.(*raft.AppendEntriesResponse)
	require.Equal(t, uint64(5), r.Term)
	require.False(t, r.Success)
	require.Nil(t, send(t, f, in, entries(5)))
	term, err := a.term(3)
	require.NoError(t, err)
	require.Equal(t, uint64(5), term)

	vote := func(id string, term uint64) any {
		return &raft.RequestVoteRequest{RPCHeader: from(id), Term: term}
	}
	require.False(t, send(t, f, in, vote("a", 9)).Response.(*raft.RequestVoteResponse).Granted)
	require.False(t, send(t, f, in, &raft.RequestPreVoteRequest{RPCHeader: from("a"), Term: 9}).Response.(*raft.RequestPreVoteResponse).Granted)
	require.Error(t, send(t, f, in, &raft.TimeoutNowRequest{RPCHeader: from("a")}).Error)
	a.learn(5, "a") // the other one of two
	require.NotNil(t, send(t, f, in, vote("a", 4)))
	require.Nil(t, send(t, f, in, vote("a", 6)))
	require.NotNil(t, send(t, f, in, vote("b", 6)))

	require.NoError(t, a.end())
	require.Nil(t, send(t, f, in, vote("b", 6)))
	require.Nil(t, send(t, f, in, entries(1)))
	again, err := openAmnesia(dir, false, discard)
	require.NoError(t, err)
	require.Nil(t, again.get())
}

// A held message is let through as soon as the terms are known.
func TestAmnesiaHoldsALeadersMessage(t *testing.T) {
	a, err := openAmnesia(t.TempDir(), true, discard)
	require.NoError(t, err)
	f, in := testFilter(t, a, &disk{})
	in <- raft.RPC{Command: &raft.AppendEntriesRequest{RPCHeader: from("a"), Term: 5}, RespChan: make(chan raft.RPCResponse, 1)}
	a.learn(5, "")
	select {
	case <-f.out:
	case <-time.After(10 * time.Second):
		t.Fatal("held for ever")
	}
}

// What a new node has promised holds for the cluster that it forms, and for no other.
func TestAmnesiaFormingIsForOneCluster(t *testing.T) {
	dir := t.TempDir()
	a, err := openAmnesia(dir, true, discard)
	require.NoError(t, err)
	require.NoError(t, a.form([]string{"a", "b"}))
	a, err = openAmnesia(dir, false, discard)
	require.NoError(t, err)
	require.True(t, a.mayVote("a", 2))
	require.False(t, a.mayVote("z", 2))
	ok, _, _ := a.mayFollow("b", 2)
	require.True(t, ok)
	require.True(t, a.mayStand())
	ok, wait, _ := a.mayFollow("z", 2)
	require.True(t, !ok && wait)
	require.False(t, a.mayVote("a", 2), "it belongs to z's cluster")
	require.False(t, a.mayStand())

	// A record that cannot be read counts.
	name := filepath.Join(dir, amnesiaFile)
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	b[4] ^= 1
	require.NoError(t, os.WriteFile(name, b, 0o644))
	a, err = openAmnesia(dir, false, discard)
	require.NoError(t, err)
	require.NotEmpty(t, a.reason())
}

func TestDiskLevels(t *testing.T) {
	d := &disk{min: 1000}
	for _, c := range []struct {
		was  diskLevel
		free int64
		want diskLevel
	}{
		{diskOK, 1000, diskOK},
		{diskOK, 999, diskLow},
		{diskLow, 1099, diskLow},
		{diskLow, 1100, diskOK},
		{diskLow, 499, diskCritical},
		{diskOK, 0, diskCritical},
		{diskCritical, 549, diskCritical},
		{diskCritical, 550, diskLow},
		{diskCritical, 1099, diskLow},
		{diskCritical, 1100, diskOK},
	} {
		require.Equal(t, c.want, d.judge(c.was, c.free), "%+v", c)
	}
	require.Equal(t, diskOK, (&disk{}).judge(diskOK, 0), "switched off")
}

// The next segment of the WAL is allocated whole: it must fit when the disk is just not full.
func TestMinFreeHoldsTwoSegments(t *testing.T) {
	for _, tc := range []struct {
		store       string
		given, want int64
	}{
		{LogStoreWAL, 1, 8 << 20},
		{LogStoreWAL, 9 << 20, 9 << 20},
		{LogStoreWAL, 0, 0},
		{LogStoreBoltDB, 1, 1},
	} {
		c, err := Config{Dir: "x", OnFatal: func(error) {}, LogStore: tc.store, LogSegmentBytes: 4 << 20, MinFree: tc.given}.withDefaults()
		require.NoError(t, err)
		require.Equal(t, tc.want, c.MinFree, "%+v", tc)
	}
}

func TestDiskFilter(t *testing.T) {
	d := &disk{min: 1000}
	f, in := testFilter(t, &amnesia{}, d)
	entries := &raft.AppendEntriesRequest{RPCHeader: from("a"), Term: 5, Entries: []*raft.Log{entry(1)}}
	require.Nil(t, send(t, f, in, entries))
	d.current.Store(int32(diskLow))
	require.Nil(t, send(t, f, in, entries), "nobody else could take them")
	d.spare.Store(true)
	require.ErrorIs(t, send(t, f, in, entries).Error, errNoRoom)
	install := &raft.InstallSnapshotRequest{RPCHeader: from("a"), Term: 5}
	require.Nil(t, send(t, f, in, install), "the fetcher decides what fits")
	d.spare.Store(false)
	d.current.Store(int32(diskCritical))
	require.ErrorIs(t, send(t, f, in, entries).Error, errNoRoom)
	require.ErrorIs(t, send(t, f, in, install).Error, errNoRoom)
	require.Nil(t, send(t, f, in, &raft.AppendEntriesRequest{RPCHeader: from("a"), Term: 5}), "a heartbeat")
	require.Nil(t, send(t, f, in, &raft.RequestVoteRequest{RPCHeader: from("a"), Term: 5}))
}

// Whatever a node of another cluster sends does not reach Raft; a node that knows no cluster yet may be a new one of this.
func TestFilterRefusesOtherClusters(t *testing.T) {
	ours := ""
	f, in := testFilter(t, &amnesia{}, &disk{})
	f.cluster = func() string { return ours }
	commands := func(addr string) []any {
		h := raft.RPCHeader{ID: []byte("a"), Addr: []byte(addr)}
		return []any{
			&raft.AppendEntriesRequest{RPCHeader: h, Term: 9}, &raft.RequestVoteRequest{RPCHeader: h, Term: 9},
			&raft.RequestPreVoteRequest{RPCHeader: h, Term: 9}, &raft.InstallSnapshotRequest{RPCHeader: h, Term: 9},
			&raft.TimeoutNowRequest{RPCHeader: h},
		}
	}
	for _, c := range commands("a@1.2.3.4:5#two") {
		require.Nil(t, send(t, f, in, c), "%T", c)
	}
	ours = "one"
	for _, addr := range []string{"", "a@1.2.3.4:5", "a@1.2.3.4:5#one"} {
		for _, c := range commands(addr) {
			require.Nil(t, send(t, f, in, c), "%T %s", c, addr)
		}
	}
	for _, c := range commands("a@1.2.3.4:5#two") {
		require.ErrorIs(t, send(t, f, in, c).Error, ErrWrongNode, "%T", c)
	}
}
