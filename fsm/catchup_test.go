// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

// catchUp makes a snapshot directory from the offered one in dir and from base, as a
// node does over the network.
func catchUp(t testing.TB, dir string, base *Base) (string, *CatchUp) {
	t.Helper()
	m, err := ReadManifest(dir)
	require.NoError(t, err)
	c, err := PlanCatchUp(m, filepath.Join(dir, stateName), base)
	require.NoError(t, err)
	fetched, dst := t.TempDir(), t.TempDir()
	for _, b := range c.Fetch {
		from := filepath.Join(dir, blocksName, b.ULID.String())
		require.NoError(t, os.CopyFS(filepath.Join(fetched, b.ULID.String()), os.DirFS(from)))
	}
	require.NoError(t, c.Assemble(t.Context(), dst, fetched, filepath.Join(dir, stateName)))
	require.NoError(t, VerifySnapshot(dst, true))
	return dst, c
}

func openBase(t testing.TB, dir string) *Base {
	t.Helper()
	b, err := OpenBase(t.Context(), dir)
	require.NoError(t, err)
	return b
}

// shuffle does random physical work: none of it may matter.
func shuffle(t testing.TB, f *FSM, rng *rand.Rand) {
	t.Helper()
	for range rng.IntN(4) {
		var err error
		switch rng.IntN(4) {
		case 0:
			err = f.Storage().Freeze()
		case 1:
			_, err = f.Storage().FlushOne()
		case 2:
			for more := true; more && err == nil; {
				more, err = f.Storage().FlushOne()
			}
			if err == nil {
				_, err = f.Storage().MergeOne()
			}
		case 3:
			for more := true; more && err == nil; {
				more, err = f.Storage().FlushOne()
			}
			if err == nil {
				err = f.Storage().Clean(t.Context())
			}
		}
		require.NoError(t, err)
	}
}

// history appends random entries to l: samples in order and late, deletes, cutoffs,
// and what is deleted written anew.
func history(t testing.TB, f *FSM, l *raftLog, rng *rand.Rand, now *int64, n int) {
	t.Helper()
	for range n {
		switch k := rng.IntN(20); {
		case k == 0:
			lo := *now - rng.Int64N(20_000_000)
			l.apply(t, EncodeDelete(Delete{
				ID: fmt.Sprint("d", rng.Uint64()), Mint: lo, Maxt: lo + rng.Int64N(10_000_000),
				Selectors: [][]*labels.Matcher{equals(model.MetricNameLabel, fmt.Sprint("s", rng.IntN(4)))},
			}))
		case k == 1:
			l.apply(t, EncodeCutoff(*now-40_000_000+rng.Int64N(5_000_000)))
		default:
			*now += rng.Int64N(600_000)
			commit(t, f, l, func(b *Batch) {
				for s := range 4 {
					b.Series(nil, name(fmt.Sprint("s", s)))
					b.Float(*now-rng.Int64N(30_000_000)*int64(rng.IntN(2)), rng.Float64())
				}
			})
		}
		shuffle(t, f, rng)
	}
}

// A node that has missed a part of the log keeps its blocks, takes what is missing of
// another's, and has the same state: whatever both have flushed, merged and cleaned,
// through several rounds.
func TestCatchUp(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			f, now := newFSM(t, ""), base
			l := newLog(f)
			l.apply(t, EncodeSettings(Settings{MaxExemplars: 10, OutOfOrderWindow: 12 * time.Hour, ClusterID: "c"}))
			g := newFSM(t, "")
			for round := range 3 {
				history(t, f, l, rng, &now, 30)
				l.catchUp(g)
				shuffle(t, g, rng)
				own := persist(t, g)
				missed := 5 + rng.IntN(30)
				history(t, f, l, rng, &now, missed)
				offer := persist(t, f)
				dst, c := catchUp(t, offer, openBase(t, own))
				require.Empty(t, c.Reason)
				require.NoError(t, g.Restore(dst))
				require.Equal(t, whole(t, f), whole(t, g), "round %d: kept %d, fetched %d", round, len(c.Keep), len(c.Fetch))
			}
			history(t, f, l, rng, &now, 20)
			l.catchUp(g)
			shuffle(t, g, rng)
			require.Equal(t, whole(t, f), whole(t, g), "and it goes on alike")
		})
	}
}

// chain is a leader with blocks of two partitions each, and a follower that has the
// state before the last of them.
func chain(t *testing.T, blocks int) (leader, follower *FSM, l *raftLog) {
	leader, follower = newFSM(t, ""), newFSM(t, "")
	l = newLog(leader)
	l.apply(t, EncodeSettings(Settings{OutOfOrderWindow: 100 * time.Hour, ClusterID: "c"}))
	for i := range blocks {
		if i == blocks-1 {
			l.catchUp(follower)
		}
		put(t, leader, l, name("a"), base+int64(i)*7_200_000, float64(i))
		require.NoError(t, leader.Storage().Freeze())
		_, err := leader.Storage().FlushOne()
		require.NoError(t, err)
	}
	return leader, follower, l
}

func TestCatchUpFetchesOnlyWhatIsMissing(t *testing.T) {
	leader, follower, _ := chain(t, 6)
	own, offer := persist(t, follower), persist(t, leader)
	m, err := ReadManifest(offer)
	require.NoError(t, err)
	require.Len(t, m.Blocks, 6)
	_, c := catchUp(t, offer, openBase(t, own))
	require.Len(t, c.Fetch, 1)
	require.Equal(t, base+5*7_200_000, c.Fetch[0].MinTime)
	require.Positive(t, c.KeepBytes())

	all, c := catchUp(t, offer, nil)
	require.Len(t, c.Fetch, 6)
	require.Empty(t, c.Keep)
	_, c = catchUp(t, offer, openBase(t, all))
	require.Empty(t, c.Fetch, "who has all of it needs nothing")
}

// A clean that a node has missed, and that is not in the log any more, is made up for.
func TestCatchUpCleans(t *testing.T) {
	for _, early := range []bool{false, true} { // whether it knew of the delete before
		leader, follower, l := chain(t, 3)
		l.apply(t, EncodeSettings(Settings{OutOfOrderWindow: 100 * time.Hour, ClusterID: "c"}))
		put(t, leader, l, name("x"), base, 1)
		l.catchUp(follower)
		for _, f := range []*FSM{leader, follower} {
			require.NoError(t, f.Storage().Freeze())
			for more := true; more; {
				var err error
				more, err = f.Storage().FlushOne()
				require.NoError(t, err)
			}
		}
		own := persist(t, follower)
		l.apply(t, EncodeDelete(Delete{ID: "d", Mint: 0, Maxt: 2 * base, Selectors: [][]*labels.Matcher{equals(model.MetricNameLabel, "x")}}))
		if early {
			l.catchUp(follower)
			own = persist(t, follower)
		}
		l.apply(t, EncodeClean("c"))
		require.NoError(t, waitTask(t, leader, "c"))
		require.Zero(t, tombstones(leader))
		put(t, leader, l, name("a"), base+3*7_200_000, 9)

		dst, c := catchUp(t, persist(t, leader), openBase(t, own))
		require.NotEmpty(t, c.Keep)
		require.NoError(t, follower.Restore(dst))
		index, _ := leader.Applied()
		require.NoError(t, waitTask(t, follower, fmt.Sprint("catch-up-", index)))
		require.Zero(t, tombstones(follower))
		require.Equal(t, whole(t, leader), whole(t, follower))

		again := newFSM(t, dst) // if the process dies meanwhile
		require.NoError(t, waitTask(t, again, fmt.Sprint("catch-up-", index)))
		require.Zero(t, tombstones(again))
		idle := newFSM(t, persist(t, again))
		require.ErrorIs(t, idle.WaitTask(t.Context(), fmt.Sprint("catch-up-", index)), ErrUnknownTask, "once")
	}

	leader, follower, _ := chain(t, 3)
	dst, _ := catchUp(t, persist(t, leader), openBase(t, persist(t, follower)))
	require.NoError(t, follower.Restore(dst))
	require.Empty(t, follower.tasks.known, "not for nothing")
}

// Blocks of the base that are damaged are replaced by those of the same time.
func TestCatchUpReplacesDamage(t *testing.T) {
	leader, follower, _ := chain(t, 6)
	own, offer := persist(t, follower), persist(t, leader)
	m, err := ReadManifest(own)
	require.NoError(t, err)
	victim := m.Blocks[len(m.Blocks)-2]
	bad := damage(t, own, filepath.Join(blocksName, victim.ULID.String(), "chunks", "000001"), func(b []byte) []byte {
		b[len(b)-6] ^= 1
		return b
	})
	b := openBase(t, bad)
	require.Len(t, b.Damaged(), 1)
	require.ErrorIs(t, b.Damaged()[0], storage.ErrDamaged)
	dst, c := catchUp(t, offer, b)
	require.Len(t, c.Fetch, 2)
	require.NoError(t, follower.Restore(dst))
	require.Equal(t, whole(t, leader), whole(t, follower))

	_, err = OpenBase(t.Context(), damage(t, own, stateName, func(b []byte) []byte { b[9] ^= 1; return b }))
	require.ErrorIs(t, err, ErrSnapshot)
}

// What a base cannot tell, or what the offer no longer knows, makes it useless: all
// is fetched then, which is always right.
func TestCatchUpUselessBase(t *testing.T) {
	leader, follower, l := chain(t, 3)
	own := persist(t, follower)
	for i := range deleteMemory + 1 {
		l.apply(t, EncodeDelete(Delete{ID: fmt.Sprint(i), Mint: base, Maxt: base, Selectors: [][]*labels.Matcher{equals(model.MetricNameLabel, "none")}}))
	}
	l.apply(t, EncodeDelete(Delete{ID: "x", Mint: base, Maxt: base, Selectors: [][]*labels.Matcher{equals(model.MetricNameLabel, "a")}}))
	offer := persist(t, leader)
	dst, c := catchUp(t, offer, openBase(t, own))
	require.Contains(t, c.Reason, "deletes")
	require.Len(t, c.Fetch, 3)
	require.NoError(t, follower.Restore(dst))
	require.Equal(t, whole(t, leader), whole(t, follower))

	_, c = catchUp(t, own, openBase(t, offer))
	require.Contains(t, c.Reason, "newer")

	stranger := newFSM(t, "")
	newLog(stranger).apply(t, EncodeSettings(Settings{ClusterID: "other"}))
	_, c = catchUp(t, offer, openBase(t, persist(t, stranger)))
	require.Contains(t, c.Reason, "cluster other")
}
