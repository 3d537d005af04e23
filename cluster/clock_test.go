// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// town has clocks that a test sets, and hears each other when it says so.
type town struct {
	t      *testing.T
	names  []string
	clocks []*clock
	real   time.Time // moved by pass
	mono   []time.Duration
	off    []time.Duration // of the wall clocks
}

func newTown(t *testing.T, n int) *town {
	w := &town{t: t, real: time.UnixMilli(1_700_000_000_000), mono: make([]time.Duration, n), off: make([]time.Duration, n)}
	for i := range n {
		w.names = append(w.names, string(rune('a'+i)))
		w.clocks = append(w.clocks, nil)
		w.restart(i)
	}
	return w
}

func (w *town) restart(i int) {
	w.clocks[i] = newClock(func() time.Time { return w.real.Add(w.off[i]) })
	w.clocks[i].mono = func() time.Duration { return w.mono[i] }
}

// pass lets time pass, in which the nodes that are up ask each other once a second.
func (w *town) pass(d time.Duration, up ...int) {
	for ; d > 0; d -= time.Second {
		w.real = w.real.Add(time.Second)
		for i := range w.mono {
			w.mono[i] += time.Second
		}
		for _, i := range up {
			w.ask(i, up...)
		}
	}
}

func (w *town) ask(i int, whom ...int) {
	var others []string
	for j, name := range w.names {
		if j != i {
			others = append(others, name)
		}
	}
	for _, j := range whom {
		if j != i {
			wall, trusted := w.clocks[j].tell()
			w.clocks[i].hear(w.names[j], wall, trusted, 0)
		}
	}
	w.clocks[i].judge(others)
}

// require checks by how much the trusted time of a node is off, and what it thinks of its wall clock.
func (w *town) require(i int, trusted time.Duration, off bool) {
	w.t.Helper()
	_, got, isOff := w.clocks[i].now()
	require.InDelta(w.t, trusted.Seconds(), got.Sub(w.real).Seconds(), 0.01, "trusted time of %s", w.names[i])
	require.Equal(w.t, off, isOff, "node %s", w.names[i])
}

func TestClockOfOneIsBelieved(t *testing.T) {
	w := newTown(t, 1)
	w.off[0] = 2 * time.Hour
	w.require(0, 2*time.Hour, false)
	w.pass(time.Second, 0)
	w.off[0] = -time.Hour
	w.require(0, -time.Hour, false)
	w.pass(time.Second, 0)
	w.require(0, -time.Hour, false)
}

func TestClockThatJumps(t *testing.T) {
	for _, n := range []int{2, 3, 4, 5} {
		for _, by := range []time.Duration{2 * time.Hour, -2 * time.Hour, 12 * time.Second, -time.Minute} {
			w := newTown(t, n)
			all := []int{0, 1, 2, 3, 4}[:n]
			w.pass(3*time.Second, all...)
			w.off[0] = by
			w.require(0, 0, true) // at once
			for range 60 {
				w.pass(time.Second, all...)
				w.require(0, 0, true)
				for _, i := range all[1:] {
					w.require(i, 0, false)
				}
			}
			w.off[0] = 0
			w.require(0, 0, true) // until it is judged
			w.pass(time.Second, all...)
			w.require(0, 0, false)
		}
	}
}

func TestClockInTheGroupIsFollowed(t *testing.T) {
	w := newTown(t, 3)
	w.off = []time.Duration{4 * time.Second, 0, -time.Second}
	w.pass(3*time.Second, 0, 1, 2)
	w.require(0, 4*time.Second, false)
	w.require(1, 0, false)
	w.off[0] = 7 * time.Second // not together with the others, but not off either
	w.pass(3*time.Second, 0, 1, 2)
	w.require(0, 0, false)
	w.off[0] = 11 * time.Second
	w.pass(time.Second, 0, 1, 2)
	w.require(0, 0, true)
	w.off[0] = 9 * time.Second
	w.pass(time.Second, 0, 1, 2)
	w.require(0, 0, true) // not back and forth
	w.off[0] = 4 * time.Second
	w.pass(time.Second, 0, 1, 2)
	w.require(0, 4*time.Second, false)
}

// All clocks are set, one after the other: the majority counts, whichever it is.
func TestClocksThatAreAllSet(t *testing.T) {
	w := newTown(t, 3)
	w.pass(3*time.Second, 0, 1, 2)
	w.off[0] = time.Hour
	w.pass(3*time.Second, 0, 1, 2)
	w.require(0, 0, true)
	w.off[1] = time.Hour
	w.pass(3*time.Second, 0, 1, 2)
	w.require(0, time.Hour, false)
	w.require(1, time.Hour, false)
	w.require(2, time.Hour, true)
}

// A suspended machine: its monotonic clock has stood still, and its wall clock is right.
func TestClockAfterSuspension(t *testing.T) {
	for _, n := range []int{2, 3} {
		w := newTown(t, n)
		all := []int{0, 1, 2}[:n]
		w.pass(3*time.Second, all...)
		mono := w.mono[0]
		w.pass(time.Hour, all[1:]...)
		w.mono[0] = mono
		w.require(0, -time.Hour, true)
		w.ask(0) // before it hears anything
		w.require(0, -time.Hour, true)
		w.ask(0, 1)
		w.require(0, 0, false)
	}
}

// Two of three nodes, which disagree: each keeps what it had.
func TestClocksOfAPair(t *testing.T) {
	w := newTown(t, 3)
	w.pass(3*time.Second, 0, 1, 2)
	w.pass(30*time.Second, 0, 1)
	w.off[1] = 2 * time.Hour
	w.pass(30*time.Second, 0, 1)
	w.require(0, 0, false)
	w.require(1, 0, true)
	w.pass(time.Minute, 1) // cut off from all others
	w.require(1, 0, true)
	w.restart(1) // it has forgotten, and the elder has not
	w.require(1, 2*time.Hour, false)
	w.pass(time.Second, 0, 1)
	w.require(0, 0, false)
	w.require(1, 0, true)
}

// Two that have never agreed with anybody: none can tell who is right.
func TestClocksOfAnUnknownPair(t *testing.T) {
	w := newTown(t, 3)
	w.off[1] = time.Hour
	w.pass(5*time.Second, 0, 1)
	w.require(0, 0, false)
	w.require(1, time.Hour, false)
	w.pass(time.Second, 0, 1, 2)
	w.require(0, 0, false)
	w.require(1, 0, true)
}

// What was heard long ago, or of a node that is gone, does not count.
func TestClocksThatAreStale(t *testing.T) {
	w := newTown(t, 3)
	w.off[1], w.off[2] = time.Hour, time.Hour
	w.clocks[0].hear("b", w.real.Add(time.Hour).UnixMilli(), 0, 0)
	w.clocks[0].hear("c", w.real.Add(time.Hour).UnixMilli(), 0, 0)
	w.clocks[0].judge(nil)
	w.require(0, 0, false)
	w.clocks[0].hear("b", w.real.Add(time.Hour).UnixMilli(), 0, 0)
	w.clocks[0].hear("c", w.real.Add(time.Hour).UnixMilli(), 0, 0)
	w.pass(16*time.Second, 1, 2)
	w.ask(0)
	w.require(0, 0, false)
	w.ask(0, 1, 2)
	w.require(0, time.Hour, true)
}

func TestClockOnTheWay(t *testing.T) {
	w := newTown(t, 2)
	for range 3 {
		w.real, w.mono[0] = w.real.Add(2*time.Second), w.mono[0]+2*time.Second
		w.clocks[0].hear("b", w.real.Add(-time.Second).UnixMilli(), 0, 2*time.Second)
		require.Equal(t, w.real.UnixNano(), int64(w.clocks[0].heard["b"].wall+w.mono[0]))
	}
}

func TestNewest(t *testing.T) {
	for by, want := range map[time.Duration]struct{ sure, never, own time.Duration }{
		0:                {MaxAhead, MaxAhead, MaxAhead},
		2 * time.Hour:    {MaxAhead, MaxAhead + 2*time.Hour, clockOff},
		-2 * time.Hour:   {MaxAhead - 2*time.Hour, MaxAhead, clockOff},
		-time.Minute:     {MaxAhead - time.Minute, MaxAhead, clockOff},
		20 * time.Second: {MaxAhead, MaxAhead + 20*time.Second, clockOff},
		-2 * time.Second: {MaxAhead - 2*time.Second, MaxAhead, MaxAhead - 2*time.Second},
	} {
		w := newTown(t, 3)
		w.pass(2*time.Second, 0, 1, 2)
		w.off[0] = by
		sure, never := w.clocks[0].newest()
		oldest, own := w.clocks[0].own()
		require.Equal(t, []time.Duration{want.sure, want.never, want.own},
			[]time.Duration{sure.Sub(w.real), never.Sub(w.real), own.Sub(w.real)}, "clock off by %s", by)
		if by.Abs() < clockOff {
			require.Zero(t, oldest)
		} else {
			require.Equal(t, -clockOff, oldest.Sub(w.real), "clock off by %s", by)
		}
	}
}

// A scrape that began while the clock was wrong may be stored when it is right again, and is doubted still.
func TestOwnTimesAfterAJump(t *testing.T) {
	w := newTown(t, 3)
	w.pass(2*time.Second, 0, 1, 2)
	w.off[0] = -20 * time.Minute
	require.Error(t, w.clocks[0].err())
	w.off[0] = 0
	require.NoError(t, w.clocks[0].err())
	oldest, newest := w.clocks[0].own()
	require.Equal(t, []time.Duration{-clockOff, clockOff}, []time.Duration{oldest.Sub(w.real), newest.Sub(w.real)})
	w.pass(clockTrail, 0, 1, 2)
	oldest, newest = w.clocks[0].own()
	require.Zero(t, oldest)
	require.Equal(t, MaxAhead, newest.Sub(w.real))
}
