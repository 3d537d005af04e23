// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import "sync"

// maxVerdicts bounds the refusals remembered, in samples: 4 MiB, and as much again when each entry has but one.
const maxVerdicts = 1 << 20

// verdictLog remembers which samples of the newest append entries were refused, for those who read the entries later.
// The applier writes it.
type verdictLog struct {
	mu    sync.Mutex // protects the following
	known map[uint64]verdict
	order []uint64 // indexes of known, oldest first
	size  int
}

// verdict is what became of one append entry.
type verdict struct {
	unknown bool     // all of it was refused
	refused []uint32 // positions
}

// size is 0 for the zero verdict.
func (v verdict) size() int {
	if v.unknown {
		return 1
	}
	return len(v.refused)
}

// add remembers the result of the entry at r.Index.
func (l *verdictLog) add(r *Result) {
	if !r.Unknown && len(r.Refused) == 0 {
		return
	}
	v := verdict{unknown: r.Unknown, refused: make([]uint32, len(r.Refused))}
	for i, x := range r.Refused {
		v.refused[i] = x.Pos
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = map[uint64]verdict{}
	}
	if _, again := l.known[r.Index]; !again {
		l.order = append(l.order, r.Index)
	}
	l.size += v.size() - l.known[r.Index].size()
	l.known[r.Index] = v
	for l.size > maxVerdicts && len(l.order) > 1 {
		l.size -= l.known[l.order[0]].size()
		delete(l.known, l.order[0])
		l.order = l.order[1:]
	}
}

// of returns the zero verdict for an entry of which nothing was refused, or nothing is known.
func (l *verdictLog) of(index uint64) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[index]
}
