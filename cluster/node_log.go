// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// AppliedEntry returns an entry that this node has applied, to be read only; nil for one that is Raft's own. ErrCompacted:
// this node's log does not hold it. Reads the disk for all but the newest entries.
func (n *Node) AppliedEntry(index uint64) ([]byte, error) {
	if applied, _ := n.fsm.Applied(); index > applied {
		return nil, fmt.Errorf("log entry %d is not applied yet, %d is", index, applied)
	}
	var l raft.Log
	err := n.stores.log.GetLog(index, &l)
	switch {
	case errors.Is(err, raft.ErrLogNotFound):
		return nil, fmt.Errorf("log entry %d: %w", index, ErrCompacted)
	case err != nil:
		return nil, fmt.Errorf("log entry %d: %w", index, err)
	case l.Type != raft.LogCommand:
		return nil, nil
	}
	return l.Data, nil
}

// FirstLogIndex is where this node's log begins; 0 while it is empty, or cannot be read.
func (n *Node) FirstLogIndex() uint64 {
	i, err := n.stores.log.FirstIndex()
	if err != nil {
		return 0
	}
	return i
}

// keepLogFrom returns the index after which the log is kept, whatever Raft wants to remove: that of the older snapshot,
// and what remote stores have not got yet, as long as that is within its budget and the disk has room. Called with every
// truncation.
func (n *Node) keepLogFrom() uint64 {
	keep := n.snapshots.oldest()
	shipped, ok := n.fsm.ShippedFrom()
	if !ok || shipped >= keep || n.disk.level() != diskOK {
		return keep
	}
	last, err := n.stores.guard.LastIndex()
	if err != nil {
		return keep
	}
	budget := uint64(n.cfg.UnshippedLogBytes / n.stores.guard.meanBytes())
	if last-min(last, shipped) > budget {
		shipped = last - budget
	}
	return min(keep, shipped)
}
