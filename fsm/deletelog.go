// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import "github.com/deucaliondb/deucalion/storage"

const (
	// deleteMemory and deleteMemoryBytes bound the deletes that are remembered.
	deleteMemory      = 1024
	deleteMemoryBytes = 1 << 20
)

// deleteLog remembers the newest deletes, so that a node which missed some of them
// can apply them to the blocks that it has, instead of getting all blocks anew. It
// is part of the replicated state.
type deleteLog struct {
	// since: every delete with a higher index is in list.
	since uint64
	list  []loggedDelete // by index
	bytes int
}

// loggedDelete is the payload of a delete entry.
type loggedDelete struct {
	Index   uint64 `json:"index"`
	Payload []byte `json:"payload"`
}

func (l *deleteLog) add(index uint64, payload []byte) {
	l.list = append(l.list, loggedDelete{index, append([]byte(nil), payload...)})
	l.bytes += len(payload)
	for len(l.list) > deleteMemory || l.bytes > deleteMemoryBytes {
		l.since = l.list[0].Index
		l.bytes -= len(l.list[0].Payload)
		l.list = l.list[1:]
	}
}

// reset takes what a snapshot at index has; a snapshot of format version 1 has nil.
func (l *deleteLog) reset(index uint64, since *uint64, list []loggedDelete) {
	*l = deleteLog{since: index}
	if since == nil {
		return
	}
	l.since = *since
	for _, d := range list {
		l.add(d.Index, d.Payload)
	}
}

// deletesAfter decodes the deletes with an index above from.
func deletesAfter(list []loggedDelete, from uint64) ([]storage.Deletion, error) {
	var out []storage.Deletion
	for _, l := range list {
		if l.Index <= from {
			continue
		}
		d, err := decodeDelete(l.Payload)
		if err != nil {
			return nil, err
		}
		out = append(out, storage.Deletion{Mint: d.Mint, Maxt: d.Maxt, Selectors: d.Selectors})
	}
	return out, nil
}
