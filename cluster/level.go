// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"strings"

	"github.com/deucaliondb/deucalion/fsm"
)

// Members of different versions work together as long as the log holds nothing that the oldest of them cannot read.
// Each tells by gossip which level of the log format it knows (fsm.Level); the leader raises Settings.MinVersion to the
// lowest of them; and nobody proposes an entry above that. It is never lowered: the log may already hold such entries.

// firstLevel is that of binaries which do not tell theirs.
const firstLevel = 1

// knownLevel is the level that the member says it knows.
func (m member) knownLevel() uint32 { return max(m.Level, firstLevel) }

// commonLevel is the lowest level that the members of the Raft configuration know; 0 while one of them has not been
// heard of.
func (n *Node) commonLevel() uint32 {
	low := uint32(0)
	for _, s := range n.servers() {
		m, ok := n.gossip.member(string(s.ID))
		if !ok {
			return 0
		}
		if l := m.knownLevel(); low == 0 || l < low {
			low = l
		}
	}
	return low
}

// levelReached returns an error that names the members which are too old for entry.
func (n *Node) levelReached(entry []byte) error {
	need, have := fsm.EntryLevel(entry), max(n.fsm.Settings().MinVersion, firstLevel)
	if need <= have {
		return nil
	}
	var why []string
	for _, s := range n.servers() {
		m, ok := n.gossip.member(string(s.ID))
		switch {
		case !ok:
			why = append(why, fmt.Sprintf("node %s has not been heard of", s.ID))
		case m.knownLevel() < need:
			why = append(why, fmt.Sprintf("node %s (version %s) knows level %d and must be upgraded", s.ID, m.Version, m.knownLevel()))
		}
	}
	if why == nil {
		why = []string{"the leader is about to raise it"}
	}
	return fmt.Errorf("%w: it needs version level %d, the cluster is at %d: %s", ErrLevel, need, have, strings.Join(why, ", "))
}
