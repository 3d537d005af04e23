// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// futureSlack is how far the timestamps of a load may run ahead of the clock before it ends by itself: servers
// refuse samples from the future.
const futureSlack = 5 * time.Minute

// Run does the load that o describes and reports on it. It returns early when ctx ends; the report then covers
// what was done.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	l := &load{
		Options: o,
		http: &http.Client{
			Timeout:   30 * time.Second,
			Transport: &http.Transport{MaxIdleConnsPerHost: o.Senders, MaxConnsPerHost: o.Senders},
		},
		jobs: make(chan *job, (o.Series+o.Batch-1)/o.Batch),
	}
	defer l.http.CloseIdleConnections()
	l.build()
	return l.run(ctx), nil
}

// job is a request that is sent again and again, each time a round later. It is either in the channel of the load
// or with one sender, so that each series is written in order and no series gets ahead of others.
type job struct {
	payload *payload
	rng     *rand.Rand
	round   int
}

type load struct {
	Options
	http *http.Client
	jobs chan *job
	left sync.WaitGroup // jobs that have rounds to go
	pace pacer
}

func (l *load) build() {
	for from := 0; from < l.Series; from += l.Batch {
		var ss []*series
		for i := from; i < min(from+l.Batch, l.Series); i++ {
			s := newSeries(i, l.Labels, i%2 == 0)
			s.random = l.Random
			ss = append(ss, s)
		}
		j := &job{rng: rand.New(rand.NewPCG(l.Seed, uint64(from)))}
		if l.Protocol == 1 {
			j.payload = newPayloadV1(ss)
		} else {
			j.payload = newPayloadV2(ss)
		}
		l.jobs <- j
	}
}

func (l *load) run(ctx context.Context) *Report {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if l.Duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, l.Duration)
		defer cancel()
	}
	l.left.Add(len(l.jobs))
	var senders sync.WaitGroup
	tallies := make([]tally, l.Senders)
	start := time.Now()
	l.pace = pacer{start: start, rate: l.Rate}
	for i := range tallies {
		tallies[i].errors = map[string]int{}
		senders.Go(func() { l.send(ctx, &tallies[i], i) })
	}
	finished := make(chan struct{})
	go func() { l.left.Wait(); cancel(); close(finished) }()
	senders.Wait()
	report := newReport(tallies, time.Since(start))
	for len(l.jobs) > 0 { // what the deadline left over
		<-l.jobs
		l.left.Done()
	}
	<-finished
	return report
}

// send is one sender: it takes the job that has waited longest, sends it until the server has answered for good,
// and puts it back.
func (l *load) send(ctx context.Context, sum *tally, n int) {
	for {
		var j *job
		select {
		case <-ctx.Done():
			return
		case j = <-l.jobs:
		}
		at := l.Start.Add(time.Duration(j.round) * l.Interval)
		if at.After(time.Now().Add(futureSlack)) {
			sum.errors["end: timestamps have reached the present"]++
			l.left.Done()
			continue
		}
		body := j.payload.fill(at.UnixMilli(), j.rng)
		l.deliver(ctx, sum, body, len(j.payload.series), n+j.round)
		if j.round++; l.Rounds > 0 && j.round >= l.Rounds {
			l.left.Done()
			continue
		}
		l.jobs <- j
	}
}

// deliver retries until there is an answer other than "later", going on to the next URL each time.
func (l *load) deliver(ctx context.Context, sum *tally, body []byte, samples, turn int) {
	if l.pace.wait(ctx, samples) != nil {
		return
	}
	for ; ; turn++ {
		start := time.Now()
		status, err := l.post(ctx, l.URLs[turn%len(l.URLs)], body)
		switch {
		case err != nil && ctx.Err() != nil:
			return
		case err == nil && status/100 == 2:
			sum.add(samples, len(body), time.Since(start))
			return
		case err == nil && status/100 == 4:
			sum.errors[fmt.Sprintf("refused with status %d", status)]++
			return
		case err == nil:
			sum.errors[fmt.Sprintf("retried after status %d", status)]++
		default:
			sum.errors["retried after connection error"]++
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			return
		}
	}
}
