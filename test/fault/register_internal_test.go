// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// judged gives what Judge finds in a history.
func judged(g *register) []string {
	r := &Registers{current: g}
	return r.Judge()
}

func TestHistories(t *testing.T) {
	for name, tc := range map[string]struct {
		history func(*register)
		red     bool
	}{
		"in order": {history: func(g *register) {
			g.written(0, 1, 0, 10)
			g.wasRead(1, 1, 20, 30)
			g.written(0, 2, 40, 50)
			g.wasRead(1, 2, 60, 70)
		}},
		"a read beside a write sees either": {history: func(g *register) {
			g.written(0, 1, 0, 100)
			g.wasRead(1, 0, 10, 20)
			g.wasRead(2, 1, 30, 40)
		}},
		"a read that goes back": {red: true, history: func(g *register) {
			g.written(0, 1, 0, 100)
			g.wasRead(1, 1, 10, 20)
			g.wasRead(2, 0, 30, 40)
		}},
		"a stale read": {red: true, history: func(g *register) {
			g.written(0, 1, 0, 10)
			g.written(0, 2, 20, 30)
			g.wasRead(1, 1, 40, 50)
		}},
		"an earlier value written later has no effect": {history: func(g *register) {
			g.written(0, 2, 0, 10)
			g.written(1, 1, 20, 30)
			g.wasRead(1, 2, 40, 50)
		}},
		"a write of unknown outcome is seen late": {history: func(g *register) {
			g.gaveUp(0, 1, 0)
			g.wasRead(1, 0, 10, 20)
			g.wasRead(1, 1, 30, 40)
		}},
		"or never": {history: func(g *register) {
			g.gaveUp(0, 1, 0)
			g.wasRead(1, 0, 10, 20)
		}},
		"but not before it was sent": {red: true, history: func(g *register) {
			g.wasRead(1, 1, 10, 20)
			g.gaveUp(0, 1, 30)
		}},
		"a value from nowhere": {red: true, history: func(g *register) {
			g.written(0, 1, 0, 10)
			g.wasRead(1, 7, 20, 30)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := &register{}
			tc.history(g)
			require.Equal(t, tc.red, len(judged(g)) > 0)
		})
	}
}

func TestAckedAt(t *testing.T) {
	g := &register{}
	g.written(0, 2, 0, 10)
	g.written(1, 1, 5, 20)
	g.written(0, 3, 25, 30)
	for at, want := range map[int64]int64{0: 0, 9: 0, 10: 2, 20: 2, 29: 2, 30: 3, 99: 3} {
		require.Equal(t, want, g.ackedAt(at), at)
	}
}

// A register that is too young to tell of an old answer is not read for one.
func TestTelling(t *testing.T) {
	first, second := &register{number: 1}, &register{number: 2}
	r := &Registers{current: first}
	requireTold := func(number int, acked, at int64) {
		t.Helper()
		g, got := r.telling(at)
		require.Equal(t, []int64{int64(number), acked}, []int64{int64(g.number), got})
	}
	requireTold(1, 0, 100)
	first.written(0, 9, 0, 10)
	requireTold(1, 9, 100)
	r.old, r.current = []*register{first}, second
	requireTold(1, 9, 100)
	second.written(0, 3, 100, 110)
	requireTold(1, 9, 100)
	requireTold(2, 3, 110)
}
