// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A node is cut off from a leader if others hear that while it does not, and go on to.
func TestContactWithTheLeader(t *testing.T) {
	answer := func(c *contact, leader string) {
		c.ask("b", func() (string, bool) { return leader, true })
	}
	later := func(c *contact) { c.since = c.since.Add(-contactEvery) }

	c := newContact()
	require.False(t, c.judge(true), "nobody has said anything")
	answer(c, "")
	require.False(t, c.judge(true), "an election: nobody hears a leader")
	require.NoError(t, c.err())

	answer(c, "a")
	require.False(t, c.judge(false), "this node hears it, too")
	require.True(t, c.judge(true))
	require.NoError(t, c.err(), "the other may just have been faster")
	later(c)
	require.ErrorContains(t, c.err(), "no contact with the leader a")
	require.Equal(t, "a", c.lost())

	require.True(t, c.judge(false), "it is back")
	require.NoError(t, c.err())

	require.True(t, c.judge(true))
	c.heard["b"] = heardFrom{start: time.Now().Add(-2 * contactLost), leader: "a"}
	require.True(t, c.judge(true), "an old answer counts for nothing")
	later(c)
	require.NoError(t, c.err())
}
