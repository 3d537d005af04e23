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
		change func(a, b, c *NodeStatus)
		may    bool // the one in the middle may go
	}{
		"all well":              {func(_, _, _ *NodeStatus) {}, true},
		"one is away":           {func(a, _, _ *NodeStatus) { a.Role = RoleUnreachable }, false},
		"one is broken":         {func(_, _, c *NodeStatus) { c.Err = "applying log entry 7" }, false},
		"one has no vote":       {func(_, _, c *NodeStatus) { c.Recovering = "the data directory was empty" }, false},
		"a lower one goes":      {func(a, _, _ *NodeStatus) { a.Damaged = "index" }, false},
		"a higher one has time": {func(_, _, c *NodeStatus) { c.Damaged = "index" }, true},
		"stopped ones go first": {func(_, _, c *NodeStatus) { c.Damaged, c.Err = "index", "applying log entry 7" }, false},
		"a stopped one goes":    {func(a, b, _ *NodeStatus) { a.Damaged, b.Err = "index", "applying log entry 7" }, true},
		"two are stopped":       {func(_, b, c *NodeStatus) { b.Err, c.Err, c.Damaged = "index", "index", "index" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, c := well("a"), well("b"), well("c")
			b.Damaged = "chunks/000001"
			tc.change(&a, &b, &c)
			require.Equal(t, tc.may, mayRepair("b", []NodeStatus{a, b, c}))
		})
	}
}
