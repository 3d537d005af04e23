// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

const (
	readTimeout   = 3 * time.Second
	writeTimeout  = time.Second // of one attempt: a node that is cut off must not hold a writer for long
	writeAttempts = 40          // before a write's outcome is left unknown
	registerOps   = 250         // writes to a series before its writer takes the next: porcupine's cost grows with them
)

var (
	errDown   = errors.New("node is down")
	errDamage = errors.New("series does not count 1, 2, 3")
)

// register is a series that one writer appends the values 1, 2, 3 ... to, at the times 1, 2, 3 ... ms; its state is the
// number of its samples. That makes it a register whose every read tells of all writes before it.
type register struct {
	number int
	sent   atomic.Int64
	acked  atomic.Int64

	mu      sync.Mutex // protects the following
	ops     []porcupine.Operation
	unknown *porcupine.Operation // the last write, when its outcome is not known; no more writes follow
}

func (r *register) labels() labels.Labels {
	return labels.FromStrings("__name__", "register", "n", fmt.Sprint(r.number))
}

func (r *register) add(op porcupine.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
}

// write is the input of a write operation; a read has the input nil.
type write int64

// registerModel accepts writes in order and reads of all writes before.
var registerModel = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, in, out any) (bool, any) {
		if w, ok := in.(write); ok {
			return int64(w) == state.(int64)+1, int64(w)
		}
		return out == state, state
	},
}

// load is writers and readers on all nodes.
type load struct {
	t     *testing.T
	nodes []*partNode
	begin time.Time
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup

	reads, localReads, writes, unknown atomic.Int64

	mu        sync.Mutex // protects the following
	registers []*register
	current   []*register // of each writer
}

func startLoad(t *testing.T, nodes []*partNode, writers, readers int, seed uint64) *load {
	l := &load{t: t, nodes: nodes, begin: time.Now(), current: make([]*register, writers)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	for i := range writers {
		l.next(i)
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		l.wg.Go(func() { l.writer(i, rng) })
	}
	for i := range readers {
		rng := rand.New(rand.NewPCG(seed, uint64(1000+i)))
		l.wg.Go(func() { l.reader(writers+i, nodes[i%len(nodes)], rng) })
	}
	return l
}

// finish lets every write come to its end.
func (l *load) finish() {
	l.stop()
	l.wg.Wait()
}

func (l *load) now() int64 { return time.Since(l.begin).Nanoseconds() }

// next gives a writer a new series.
func (l *load) next(writer int) *register {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &register{number: len(l.registers)}
	l.registers = append(l.registers, r)
	l.current[writer] = r
	return r
}

// some returns a series that is being written, or was lately.
func (l *load) some(rng *rand.Rand) *register {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current[rng.IntN(len(l.current))]
}

func (l *load) all() []*register {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*register(nil), l.registers...)
}

func (l *load) writer(client int, rng *rand.Rand) {
	r := l.next(client)
	for l.ctx.Err() == nil {
		if r.sent.Load() >= registerOps {
			r = l.next(client)
		}
		v := r.sent.Add(1)
		op := porcupine.Operation{ClientId: client, Input: write(v), Call: l.now()}
		ok := l.write(r, v, rng)
		op.Return = l.now()
		l.writes.Add(1)
		if ok {
			r.acked.Store(v)
			r.add(op)
		} else {
			l.unknown.Add(1)
			r.mu.Lock()
			r.unknown = &op
			r.mu.Unlock()
			r = l.next(client)
		}
		sleepUpTo(rng, 10*time.Millisecond)
	}
}

// write repeats one write, at any node, until it is acknowledged. Repeating is harmless by the rules of admission.
func (l *load) write(r *register, v int64, rng *rand.Rand) bool {
	for range writeAttempts {
		err := l.nodes[rng.IntN(len(l.nodes))].append(r, v)
		if err == nil {
			return true
		}
		sleepUpTo(rng, 20*time.Millisecond)
	}
	return false
}

func (l *load) reader(client int, n *partNode, rng *rand.Rand) {
	seen := map[*register]int64{}
	var life int64
	for l.ctx.Err() == nil {
		r := l.some(rng)
		acked := r.acked.Load()
		op := porcupine.Operation{ClientId: client, Call: l.now()}
		got, _, err := n.read(r, true)
		op.Return, op.Output = l.now(), got
		switch {
		case errors.Is(err, errDamage):
			l.t.Errorf("linearizable read of %s on %s: %v", r.labels(), n.id, err)
		case err == nil && (got < acked || got > r.sent.Load()):
			l.t.Errorf("linearizable read of %s on %s has %d samples; %d were acknowledged before it began, %d sent when it ended",
				r.labels(), n.id, got, acked, r.sent.Load())
		case err == nil:
			l.reads.Add(1)
			r.add(op)
		}
		// A node's own state only ever grows, whoever leads.
		got, now, err := n.read(r, false)
		if now != life {
			clear(seen)
			life = now
		}
		if err == nil {
			if got < seen[r] {
				l.t.Errorf("local read of %s on %s has %d samples, an earlier one had %d", r.labels(), n.id, got, seen[r])
			}
			seen[r] = got
			l.localReads.Add(1)
		}
		sleepUpTo(rng, 20*time.Millisecond)
	}
}

// judge settles the unknown outcomes by what is there in the end, and checks each series' history.
func (l *load) judge(final map[string][]sample) {
	known := map[string]bool{}
	ops := 0
	for _, r := range l.all() {
		key := r.labels().String()
		known[key] = true
		got := int64(len(final[key]))
		for i, s := range final[key] {
			if s.t != int64(i+1) || s.v != float64(i+1) {
				l.t.Errorf("%s: sample %d is %v at %d", key, i+1, s.v, s.t)
				break
			}
		}
		if got < r.acked.Load() || got > r.sent.Load() {
			l.t.Errorf("%s has %d samples, %d were acknowledged, %d sent", key, got, r.acked.Load(), r.sent.Load())
		}
		history := r.ops
		if u := r.unknown; u != nil && got == int64(u.Input.(write)) {
			u.Return = math.MaxInt64
			history = append(history, *u)
		}
		ops += len(history)
		if res := porcupine.CheckOperationsTimeout(registerModel, history, time.Minute); res != porcupine.Ok {
			l.t.Errorf("history of %s, %d operations: %s", key, len(history), res)
		}
	}
	for key := range final {
		if !known[key] {
			l.t.Errorf("series that was never sent: %s", key)
		}
	}
	l.t.Logf("%d writes, %d of them unknown, %d linearizable and %d local reads, %d series, %d operations judged",
		l.writes.Load(), l.unknown.Load(), l.reads.Load(), l.localReads.Load(), len(l.registers), ops)
}

type sample struct {
	t int64
	v float64
}

// dump reads samples of the node's own state.
func (n *testNode) dump(ms ...*labels.Matcher) (map[string][]sample, error) {
	q, err := n.fsm.Querier(math.MinInt64/2, math.MaxInt64/2)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	out := map[string][]sample{}
	ss := q.Select(context.Background(), true, nil, ms...)
	for ss.Next() {
		it := ss.At().Iterator(nil)
		var row []sample
		for it.Next() == chunkenc.ValFloat {
			t, v := it.At()
			row = append(row, sample{t, v})
		}
		if it.Err() != nil {
			return nil, it.Err()
		}
		out[ss.At().Labels().String()] = row
	}
	return out, ss.Err()
}

// upTo is a random part of d.
func upTo(rng *rand.Rand, d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }

func sleepUpTo(rng *rand.Rand, d time.Duration) { time.Sleep(upTo(rng, d)) }
