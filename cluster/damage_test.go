// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A node that restarts to repair a damaged block may be without a vote for a while, so no two may do it at once.
func TestMayRepair(t *testing.T) {
	well := func(id string) NodeStatus { return NodeStatus{ID: id, Role: RoleFollower} }
	for name, tc := range map[string]struct {
		change func(a, c *NodeStatus)
		b      bool // the one in the middle may go
	}{
		"all well":              {func(_, _ *NodeStatus) {}, true},
		"one is away":           {func(a, _ *NodeStatus) { a.Role = RoleUnreachable }, false},
		"one is broken":         {func(_, c *NodeStatus) { c.Err = "applying log entry 7" }, false},
		"one has no vote":       {func(_, c *NodeStatus) { c.Recovering = "the data directory was empty" }, false},
		"a lower one goes":      {func(a, _ *NodeStatus) { a.Damaged = "index" }, false},
		"a higher one has time": {func(_, c *NodeStatus) { c.Damaged = "index" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, c := well("a"), well("b"), well("c")
			b.Damaged = "chunks/000001"
			tc.change(&a, &c)
			require.Equal(t, tc.b, mayRepair("b", []NodeStatus{a, b, c}))
		})
	}
}
