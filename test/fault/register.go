// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// judgeTimeout bounds porcupine's search in one history.
const judgeTimeout = time.Minute

// register is one series and its history.
type register struct {
	number int
	base   int64 // ms
	sent   int64 // values; protected by the lock of Registers

	mu      sync.Mutex // protects what follows
	ops     []porcupine.Operation
	unknown []porcupine.Operation // writes whose outcome nobody was told
	acks    []ackPoint            // in order of time
}

// ackPoint says that max was the largest acknowledged value from at (ns since the begin) on.
type ackPoint struct{ at, max int64 }

// write is the input of a write; a read has the input nil.
type write int64

// growing is a register that only grows: a write of less than it holds has no effect on what is read.
func growing() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return int64(0) },
		Step: func(state, in, out any) (bool, any) {
			if w, ok := in.(write); ok {
				return true, max(state.(int64), int64(w))
			}
			return out == state, state
		},
	}
}

func (g *register) written(id int, v, call, end int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ops = append(g.ops, porcupine.Operation{ClientId: id, Input: write(v), Call: call, Return: end})
	top := v
	if n := len(g.acks); n > 0 {
		top = max(top, g.acks[n-1].max)
	}
	g.acks = append(g.acks, ackPoint{end, top})
}

func (g *register) gaveUp(id int, v, call int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unknown = append(g.unknown, porcupine.Operation{ClientId: id, Input: write(v), Call: call, Return: math.MaxInt64})
}

func (g *register) wasRead(id int, got, call, end int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ops = append(g.ops, porcupine.Operation{ClientId: id, Input: nil, Output: got, Call: call, Return: end})
}

// ackedAt is the largest value that was acknowledged at the time t (ns since the begin).
func (g *register) ackedAt(t int64) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	i, _ := slices.BinarySearchFunc(g.acks, t, func(a ackPoint, t int64) int {
		if a.at <= t {
			return -1
		}
		return 1
	})
	if i == 0 {
		return 0
	}
	return g.acks[i-1].max
}

// attempted is the largest value that anybody has sent.
func (g *register) attempted(r *Registers) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return g.sent
}

// history are the operations for porcupine: a write of unknown outcome counts if somebody has seen its value.
func (g *register) history() []porcupine.Operation {
	g.mu.Lock()
	defer g.mu.Unlock()
	seen := map[int64]bool{}
	for _, op := range g.ops {
		if v, ok := op.Output.(int64); ok {
			seen[v] = true
		}
	}
	out := slices.Clone(g.ops)
	for _, op := range g.unknown {
		if seen[int64(op.Input.(write))] {
			out = append(out, op)
		}
	}
	return out
}

// Judge has porcupine judge the histories, after Stop, and gives all findings.
func (r *Registers) Judge() []string {
	for _, g := range append(r.old, r.current) {
		ops := g.history()
		switch porcupine.CheckOperationsTimeout(growing(), ops, judgeTimeout) {
		case porcupine.Ok:
			r.counts.Judged += len(ops)
		case porcupine.Illegal:
			r.findf("register %d: the history of %d operations is not linearizable", g.number, len(ops))
		case porcupine.Unknown:
			r.findf("register %d: the history of %d operations could not be judged in %s", g.number, len(ops), judgeTimeout)
		}
	}
	return r.findings
}

// Failed counts the reads through the balancer that were not answered, and tells why the newest was not.
func (r *Registers) Failed() (n int, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts.BalancerErrs, r.failed
}

// Counts tells what has happened so far.
func (r *Registers) Counts() RegisterCounts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}
