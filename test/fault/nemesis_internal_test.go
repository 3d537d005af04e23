// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A seed gives the same faults in the same order. Each kind comes once at first, then all of a deck come before any comes again more
// often than its weight.
func TestDeck(t *testing.T) {
	s := &System{Nodes: []*Node{{}}}
	kinds := []Fault{
		{Name: "a", Weight: 3, Possible: func(*System) bool { return true }},
		{Name: "b", Weight: 1, Possible: func(*System) bool { return true }},
		{Name: "never", Weight: 9, Possible: func(*System) bool { return false }},
	}
	draw := func(seed uint64) (out []string) {
		n, err := NewNemesis(s, kinds, seed)
		require.NoError(t, err)
		for range 42 {
			out = append(out, n.Next().Name)
		}
		return out
	}
	first := draw(1)
	require.Equal(t, first, draw(1))
	require.NotEqual(t, first, draw(2))
	require.ElementsMatch(t, []string{"a", "b"}, first[:2])
	for deck := 2; deck < 42; deck += 4 {
		require.ElementsMatch(t, []string{"a", "a", "a", "b"}, first[deck:deck+4])
	}
	_, err := NewNemesis(s, kinds[2:], 1)
	require.Error(t, err)
}
