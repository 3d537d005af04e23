// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/deucaliondb/deucalion/test/client"
)

const (
	registerWrites  = 300              // to a register before the next: porcupine's cost grows with them
	registerTry     = 20               // attempts of one write
	registerTimeout = 2 * time.Second  // of one attempt, and of a read
	balancedTimeout = 5 * time.Second  // of a read through the balancer, which may first have to leave a node out
	registerAhead   = 60 * time.Second // of a register's base: the time at which it is read
	// maxStaleness is what StalenessFlag says.
	maxStaleness = 2 * time.Second
)

// StalenessFlag is for the nodes: most faults last longer than this, so a node that answers with an older state shows. Few last
// as long as the default of 10 s.
const StalenessFlag = "--query.max-staleness=2s"

// Registers writes to series and reads them, and keeps the history of it. A series is a register that only grows: the
// k-th write puts the value k at the k-th millisecond after a base, and a read gives the last sample. So a read
// tells of all writes before it, whatever their order of arrival.
type Registers struct {
	targets  []*client.Client // the nodes, and the balancer as often
	balanced *client.Client   // what Grafana asks
	begin    time.Time
	number   string // of the run, a label

	gaps *Gaps

	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex // protects what follows
	current  *register
	old      []*register // whose history is not judged yet
	count    int
	counts   RegisterCounts
	failed   string // why the newest read through the balancer was not answered
	findings []string
}

// RegisterCounts is what happened so far.
type RegisterCounts struct {
	Writes       int `json:"writes"`        // acknowledged
	Unknown      int `json:"unknown"`       // writes given up
	Linearizable int `json:"linearizable"`  // reads answered
	Bounded      int `json:"bounded"`       // reads of the default level answered
	Local        int `json:"local"`         // reads of the state of a node, whatever its age, answered
	MinIndex     int `json:"min_index"`     // reads of one's own write answered
	Unanswered   int `json:"unanswered"`    // reads that got an error, and may
	Judged       int `json:"judged"`        // operations in histories that porcupine has accepted
	BalancerErrs int `json:"balancer_errs"` // of the bounded reads through the balancer that were not answered
}

// StartRegisters starts three writers and six readers, until Stop. run sets their series apart from others'.
func StartRegisters(s *System, run string, seed uint64, gaps *Gaps) *Registers {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Registers{begin: time.Now(), number: run, gaps: gaps, stop: cancel}
	for _, n := range s.Nodes {
		r.targets = append(r.targets, n.Client())
	}
	r.balanced = r.targets[0]
	if s.Balancer != "" {
		r.balanced = client.New(s.Balancer)
		for range s.Nodes {
			r.targets = append(r.targets, r.balanced)
		}
	}
	r.rotateLocked()
	for i := range 3 {
		r.start(ctx, seed, 3*i, r.writer)
		r.start(ctx, seed, 3*i+1, r.linearizable)
		r.start(ctx, seed, 3*i+2, r.bounded)
	}
	return r
}

func (r *Registers) start(ctx context.Context, seed uint64, client int, loop func(context.Context, int, *rand.Rand)) {
	rng := rand.New(rand.NewPCG(seed, uint64(1000+client)))
	r.wg.Go(func() {
		for ctx.Err() == nil {
			loop(ctx, client, rng)
			pause(ctx, time.Duration(rng.IntN(120))*time.Millisecond)
		}
	})
}

// Stop ends the work and waits for its end.
func (r *Registers) Stop() {
	r.stop()
	r.wg.Wait()
	for _, c := range r.targets {
		c.Close()
	}
}

func (r *Registers) now() int64 { return time.Since(r.begin).Nanoseconds() }

func (r *Registers) rotateLocked() {
	if r.current != nil {
		r.old = append(r.old, r.current)
	}
	r.count++
	r.current = &register{number: r.count, base: time.Now().UnixMilli()}
}

// take gives the register in use and the next value for it.
func (r *Registers) take() (*register, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current.sent == registerWrites {
		r.rotateLocked()
	}
	r.current.sent++
	return r.current, r.current.sent
}

func (r *Registers) inUse() *register {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

// telling is the newest register that an old answer shows in, and what was acknowledged of it at the time t: of one that was begun
// after that any answer will do.
func (r *Registers) telling(t int64) (*register, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if acked := r.current.ackedAt(t); acked > 0 || len(r.old) == 0 {
		return r.current, acked
	}
	last := r.old[len(r.old)-1]
	return last, last.ackedAt(t)
}

// note books under the lock.
func (r *Registers) note(f func(*RegisterCounts)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.counts)
}

func (r *Registers) findf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.findings) < 20 {
		r.findings = append(r.findings, fmt.Sprintf(format, args...))
	}
}

func (r *Registers) any(rng *rand.Rand) *client.Client { return r.targets[rng.IntN(len(r.targets))] }

// writer writes one value, at one node after the other until it is acknowledged.
func (r *Registers) writer(ctx context.Context, id int, rng *rand.Rand) {
	reg, v := r.take()
	body, err := client.Encode([]prompb.TimeSeries{{
		Labels:  client.Labels("__name__", "fault_register", "n", fmt.Sprint(reg.number), "run", r.number),
		Samples: []prompb.Sample{{Timestamp: reg.base + v, Value: float64(v)}},
	}})
	if err != nil {
		r.findf("encode: %v", err)
		return
	}
	call := r.now()
	for try := 0; try < registerTry && ctx.Err() == nil; try++ {
		index, err := r.write(ctx, r.any(rng), body)
		if err == nil {
			reg.written(id, v, call, r.now())
			r.gaps.Writes.Mark()
			r.note(func(c *RegisterCounts) { c.Writes++ })
			if index != "" && rng.IntN(3) == 0 {
				r.own(ctx, reg, v, index, r.any(rng))
			}
			return
		}
		pause(ctx, time.Duration(rng.IntN(50))*time.Millisecond)
	}
	reg.gaveUp(id, v, call)
	r.note(func(c *RegisterCounts) { c.Unknown++ })
}

func (r *Registers) write(ctx context.Context, c *client.Client, body []byte) (index string, err error) {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	resp, err := c.WriteBody(ctx, body)
	if err != nil {
		return "", err
	}
	if resp.Status/100 == 4 {
		r.findf("a write got %v", resp.Err())
	}
	return resp.Header.Get("X-Deucalion-Index"), resp.Err()
}

// own reads a value back with the index of its write.
func (r *Registers) own(ctx context.Context, reg *register, v int64, index string, c *client.Client) {
	got, err := r.read(ctx, reg, c, http.Header{"X-Deucalion-Min-Index": {index}})
	if err != nil {
		r.note(func(c *RegisterCounts) { c.Unanswered++ })
		return
	}
	r.note(func(c *RegisterCounts) { c.MinIndex++ })
	if got < v {
		r.findf("register %d: a read at the index of the write of %d gave %d", reg.number, v, got)
	}
}

func (r *Registers) linearizable(ctx context.Context, id int, rng *rand.Rand) {
	reg := r.inUse()
	acked := reg.ackedAt(r.now())
	call := r.now()
	got, err := r.read(ctx, reg, r.any(rng).At(client.Linearizable), nil)
	if err != nil {
		r.note(func(c *RegisterCounts) { c.Unanswered++ })
		return
	}
	r.gaps.Linear.Mark()
	reg.wasRead(id, got, call, r.now())
	r.note(func(c *RegisterCounts) { c.Linearizable++ })
	if got < acked {
		r.findf("register %d: a linearizable read gave %d, %d was acknowledged before it", reg.number, got, acked)
	}
}

// local reads what a node has, whatever its age: it may be old, and never from nowhere.
func (r *Registers) local(ctx context.Context, rng *rand.Rand) {
	reg := r.inUse()
	got, err := r.read(ctx, reg, r.any(rng).At(client.Local), nil)
	if err != nil {
		r.note(func(c *RegisterCounts) { c.Unanswered++ })
		return
	}
	r.note(func(c *RegisterCounts) { c.Local++ })
	if sent := reg.attempted(r); got > sent {
		r.findf("register %d: a local read gave %d of %d sent", reg.number, got, sent)
	}
}

// bounded reads at the default level: mostly through the balancer, which leaves out a node that is behind. So it is nodes asked
// without it that must refuse by themselves.
func (r *Registers) bounded(ctx context.Context, _ int, rng *rand.Rand) {
	if rng.IntN(8) == 0 {
		r.local(ctx, rng)
		return
	}
	reg, acked := r.telling(r.now() - maxStaleness.Nanoseconds())
	c := r.balanced
	if rng.IntN(2) == 0 {
		c = r.any(rng)
	}
	timeout := registerTimeout
	if c == r.balanced {
		timeout = balancedTimeout
	}
	got, err := r.readWithin(ctx, timeout, reg, c, nil)
	if err != nil {
		r.note(func(n *RegisterCounts) {
			n.Unanswered++
			if c == r.balanced && ctx.Err() == nil {
				n.BalancerErrs++
				r.failed = err.Error()
			}
		})
		return
	}
	if c == r.balanced {
		r.gaps.Reads.Mark()
	}
	r.note(func(c *RegisterCounts) { c.Bounded++ })
	if sent := reg.attempted(r); got < acked || got > sent {
		r.findf("register %d: a bounded read gave %d; %d was acknowledged %s before it, %d sent", reg.number, got, acked, maxStaleness, sent)
	}
}

var errAnswer = errors.New("unexpected answer")

func (r *Registers) read(ctx context.Context, reg *register, c *client.Client, header http.Header) (int64, error) {
	return r.readWithin(ctx, registerTimeout, reg, c, header)
}

// readWithin gives the value of a register, 0 before the first write.
func (r *Registers) readWithin(ctx context.Context, timeout time.Duration, reg *register, c *client.Client, header http.Header) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	params := url.Values{
		"query": {fmt.Sprintf(`fault_register{n="%d",run="%s"}`, reg.number, r.number)},
		"time":  {client.Seconds(reg.base + registerAhead.Milliseconds())},
	}
	if header != nil {
		d := *c
		d.Header = header
		c = &d
	}
	var data struct {
		Result []struct {
			Value client.Point `json:"value"`
		} `json:"result"`
	}
	if err := c.Data(ctx, "/api/v1/query", params, &data); err != nil {
		return 0, err
	}
	switch len(data.Result) {
	case 0:
		return 0, nil
	case 1:
		return strconv.ParseInt(data.Result[0].Value.Value, 10, 64)
	}
	r.findf("register %d: %d series in an answer", reg.number, len(data.Result))
	return 0, errAnswer
}

func (c *RegisterCounts) add(d RegisterCounts) {
	c.Writes += d.Writes
	c.Unknown += d.Unknown
	c.Linearizable += d.Linearizable
	c.Bounded += d.Bounded
	c.Local += d.Local
	c.MinIndex += d.MinIndex
	c.Unanswered += d.Unanswered
	c.Judged += d.Judged
	c.BalancerErrs += d.BalancerErrs
}
