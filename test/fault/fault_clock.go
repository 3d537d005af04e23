// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"time"
)

// jumps are how far the clock of a node is off.
func jumps() []time.Duration {
	return []time.Duration{
		-2 * time.Hour, -20 * time.Minute, -time.Minute, -2 * time.Second,
		2 * time.Second, time.Minute, 20 * time.Minute, 2 * time.Hour,
	}
}

// clockFaults are about clocks that jump, and jump back.
func clockFaults() []Fault {
	return []Fault{{
		Name: "clock jump of up to 2 h", Weight: 3, Possible: func(s *System) bool { return s.Nodes[0].Clock != "" }, Do: one(jump),
	}}
}

func jump(ctx context.Context, n *Nemesis, node *Node) error {
	all := jumps()
	by := all[n.rng.IntN(len(all))]
	// What the node's own rules did in the wrong time is not what they would have done, before and after.
	begin := time.Now()
	if err := node.SetClock(by); err != nil {
		return err
	}
	n.hold(ctx, time.Second, 5*time.Second)
	err := node.SetClock(0)
	n.Doubt(begin, time.Now())
	return err
}
