// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// ShardMode says how the targets are divided among the nodes.
type ShardMode string

const (
	// ShardSpread divides them among all nodes that take part.
	ShardSpread ShardMode = "spread"
	// ShardLeader lets the leader scrape all of them.
	ShardLeader ShardMode = "leader"
)

// share says which targets this node scrapes. The zero value is none of them.
type share struct {
	all     bool
	self    string
	members []string // those who take part, sorted
}

func (s share) equal(o share) bool {
	return s.all == o.all && s.self == o.self && slices.Equal(s.members, o.members)
}

func (s share) owns(key uint64) bool {
	return s.all || s.self != "" && owner(s.members, key) == s.self
}

// owner is the member that scrapes the target with this key: the one whose id gives the highest hash with it (rendezvous
// hashing). A member that leaves gives up its own targets and no others move; one that joins takes an equal part from
// each of the others. "" without members.
func owner(members []string, key uint64) string {
	var best string
	var top uint64
	var room [64]byte
	input := binary.LittleEndian.AppendUint64(room[:0], key)
	for _, m := range members {
		if h := xxhash.Sum64(append(input, m...)); best == "" || h > top {
			best, top = m, h
		}
	}
	return best
}

// targetKey identifies a target for sharding: what is asked, not which labels the answer gets. So two groups of labels
// of one address are scraped by one node, and duplicates, which the scrape manager drops, meet there.
func targetKey(job, url string) uint64 {
	return xxhash.Sum64String(job + "\xff" + url)
}
