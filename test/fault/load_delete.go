// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/deucaliondb/deucalion/test/client"
)

const (
	deleteMetric = "fault_delete"
	// deleteBatch is how many samples a write has, deleteStep ms apart: late ones go between them.
	deleteBatch = 10
	deleteStep  = 2
	// deleteRounds is how long a series is worked on.
	deleteRounds = 8
	// deletePatience is how long a call is tried again before its fate stays unknown, deleteTimeout bounds each attempt.
	deletePatience = time.Minute
	deleteTimeout  = 10 * time.Second
	deleteRetry    = 200 * time.Millisecond
)

// Deletes writes series and deletes samples of them again, at random nodes. What an acknowledged delete has deleted must be gone,
// and all else that was acknowledged must be there, also what was written later.
//
// An attempt that got no answer, or another one than 2xx, may take effect at any later time: a sample that was written twice may
// come back after a delete, and a delete that was sent twice may delete what came after the first. Such samples are not judged.
type Deletes struct {
	// Clients are of the nodes. Each call goes to a random one. Set before Run, as are the others.
	Clients []*client.Client
	// Workers are at work at a time, on series of their own.
	Workers int
	// Interval is the pause of a worker between two calls.
	Interval time.Duration
	// Late writes samples into deleted ranges, too. It takes servers with an out-of-order window.
	Late bool
	// Seed of the choice of nodes and ranges.
	Seed uint64

	mu     sync.Mutex // protects the following, and what they hold
	series []*deleteSeries
}

// NewDeletes has defaults for all but the clients.
func NewDeletes(clients []*client.Client) *Deletes {
	return &Deletes{Clients: clients, Workers: 4, Interval: 500 * time.Millisecond}
}

// deleteSeries is the series of a worker. Its calls are in the order in which they were done.
type deleteSeries struct {
	labels []prompb.Label
	calls  []*deleteCall
}

// deleteCall is a write or a delete.
type deleteCall struct {
	// delete tells that it deletes the samples from first to last (ms, inclusive). Else it writes a batch from first to last, the
	// i-th of which has the value value+i.
	delete      bool
	first, last int64
	value       float64

	acked bool
	// once tells that just one attempt may have had an effect.
	once bool
	used bool // a late write has gone between the samples of this one
}

// Run works until ctx ends and what is under way has its answer.
func (d *Deletes) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for i := range d.Workers {
		rng := rand.New(rand.NewPCG(d.Seed, uint64(i)))
		workers.Go(func() {
			for ctx.Err() == nil {
				d.work(ctx, d.add(), rng)
			}
		})
	}
	workers.Wait()
}

func (d *Deletes) add() *deleteSeries {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &deleteSeries{labels: client.Labels("__name__", deleteMetric, "n", strconv.Itoa(len(d.series)))}
	d.series = append(d.series, s)
	return s
}

// work writes and deletes until the series has had enough.
func (d *Deletes) work(ctx context.Context, s *deleteSeries, rng *rand.Rand) {
	last := int64(0)
	var writes []*deleteCall
	for round := 0; round < deleteRounds && ctx.Err() == nil; round++ {
		first := max(last+deleteStep, time.Now().UnixMilli())
		w := d.write(ctx, s, first, rng)
		writes, last = append(writes, w), w.last
		if rng.IntN(3) == 0 || ctx.Err() != nil {
			continue
		}
		c := &deleteCall{delete: true, first: math.MinInt64, last: math.MaxInt64}
		if rng.IntN(3) > 0 {
			// From within one batch to within the same or a later one.
			i := rng.IntN(len(writes))
			c.first = writes[i].first + rng.Int64N(deleteBatch*deleteStep)
			c.last = c.first + rng.Int64N(max(1, last-c.first))
		}
		d.call(ctx, s, c, rng)
		if c.first == math.MinInt64 && !c.once {
			return // no later sample could be judged
		}
		for _, w := range writes {
			if d.Late && ctx.Err() == nil && !w.used && w.first <= c.last && w.last >= c.first {
				w.used = true
				d.write(ctx, s, w.first+1, rng)
				break
			}
		}
	}
}

func (d *Deletes) write(ctx context.Context, s *deleteSeries, first int64, rng *rand.Rand) *deleteCall {
	c := &deleteCall{first: first, last: first + (deleteBatch-1)*deleteStep, value: float64(len(s.calls) * deleteBatch)}
	d.call(ctx, s, c, rng)
	return c
}

// call does c at random nodes until it is acknowledged or given up.
func (d *Deletes) call(ctx context.Context, s *deleteSeries, c *deleteCall, rng *rand.Rand) {
	d.mu.Lock()
	s.calls = append(s.calls, c)
	d.mu.Unlock()
	effects := 0
	for begin := time.Now(); time.Since(begin) < deletePatience; {
		err := d.attempt(ctx, d.Clients[rng.IntN(len(d.Clients))], s, c)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			effects++
		}
		d.mu.Lock()
		c.acked, c.once = err == nil, effects <= 1
		d.mu.Unlock()
		wait := deleteRetry
		if err == nil {
			wait = d.Interval
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if err == nil {
			return
		}
	}
}

func (d *Deletes) attempt(ctx context.Context, cl *client.Client, s *deleteSeries, c *deleteCall) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTimeout)
	defer cancel()
	if !c.delete {
		return cl.Write(ctx, []prompb.TimeSeries{{Labels: s.labels, Samples: c.samples()}})
	}
	params := url.Values{"match[]": {client.Key(s.labels)}}
	if c.first > math.MinInt64 {
		params.Set("start", client.Seconds(c.first))
		params.Set("end", client.Seconds(c.last))
	}
	return cl.Delete(ctx, params)
}

// samples are those of a write.
func (c *deleteCall) samples() (out []prompb.Sample) {
	for i := range deleteBatch {
		out = append(out, prompb.Sample{Timestamp: c.first + int64(i)*deleteStep, Value: c.value + float64(i)})
	}
	return out
}
