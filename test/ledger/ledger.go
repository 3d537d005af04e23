// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package ledger writes samples to a cluster and keeps book of them: what was sent,
// and what of it was acknowledged. Afterwards it can tell of any data whether every
// acknowledged sample is there and nothing is there that was never sent. Each value
// names its series and its place in it, so a sample that turns up with another
// series' value, or at another time, is found out as well.
package ledger

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/deucaliondb/deucalion/test/client"
)

// Ledger keeps book. It is safe for concurrent use.
type Ledger struct {
	run string // label value that all its series carry

	mu     sync.Mutex // protects what follows
	series []*series
	acks   []ack
	faults []string // answers that no writer may get
	tries  map[string]int
	sent   int // samples
	acked  int
	trace  string        // of the newest acknowledged request
	last   time.Time     // of the newest acknowledgement, or of the end of a pause
	gap    time.Duration // longest time without one
}

// series is one series and its book; the k-th sample sent has the k-th timestamp.
type series struct {
	number int // names the series in its values
	labels []prompb.Label
	hist   bool
	times  []int64 // ms, each once; increasing unless the load is late
	acked  []bool
}

// ack is the time span of an acknowledged attempt.
type ack struct{ start, end time.Time }

// New returns an empty ledger; run must differ between ledgers that write to the same cluster.
func New(run string) *Ledger { return &Ledger{run: run, tries: map[string]int{}} }

// add makes one more series.
func (l *Ledger) add(hist bool) *series {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.series)
	kind := "float"
	if hist {
		kind = "histogram"
	}
	s := &series{number: n, hist: hist, labels: client.Labels(
		"__name__", "ledger_"+kind, "n", fmt.Sprint(n), "run", l.run,
	)}
	l.series = append(l.series, s)
	return s
}

// value is the float which the k-th sample of a series has, or the sum of its histogram.
func (s *series) value(k int) float64 { return float64(s.number)*(1<<32) + float64(k) }

// histogram is the k-th histogram of a series. Its buckets only grow, and none is empty, so that no
// server has a reason to write it in another way.
func (s *series) histogram(k int, t int64) prompb.Histogram {
	n := int64(k + 1)
	return prompb.Histogram{
		Count:          &prompb.Histogram_CountInt{CountInt: uint64(n + 2*n + n)},
		Sum:            s.value(k),
		Schema:         1,
		ZeroThreshold:  0.001,
		ZeroCount:      &prompb.Histogram_ZeroCountInt{ZeroCountInt: uint64(n)},
		PositiveSpans:  []prompb.BucketSpan{{Offset: int32(s.number % 7), Length: 2}},
		PositiveDeltas: []int64{2 * n, -n},
		Timestamp:      t,
	}
}

// batch is what one request carries: the samples [from, to) of each of its series.
type batch struct {
	series   []*series
	from, to int
	body     []byte
	trace    string // names its exemplar and metadata; "" without
}

// next books the samples at times for all of ss, as sent but not acknowledged, and encodes them.
// The series of one writer always move together, so they agree about the count so far.
func (l *Ledger) next(ss []*series, times []int64, extras bool) (*batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &batch{series: ss, from: len(ss[0].times)}
	b.to = b.from + len(times)
	request := make([]prompb.TimeSeries, 0, len(ss))
	for _, s := range ss {
		ts := prompb.TimeSeries{Labels: s.labels}
		for i, t := range times {
			if s.hist {
				ts.Histograms = append(ts.Histograms, s.histogram(b.from+i, t))
			} else {
				ts.Samples = append(ts.Samples, prompb.Sample{Value: s.value(b.from + i), Timestamp: t})
			}
		}
		s.times = append(s.times, times...)
		s.acked = append(s.acked, make([]bool, len(times))...)
		request = append(request, ts)
	}
	l.sent += len(ss) * len(times)
	w := &prompb.WriteRequest{Timeseries: request}
	if extras {
		l.addExtras(b, w)
	}
	var err error
	b.body, err = client.EncodeRequest(w)
	return b, err
}

// acknowledge books a batch as acknowledged by an attempt that began at start.
func (l *Ledger) acknowledge(b *batch, start time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range b.series {
		for k := b.from; k < b.to; k++ {
			s.acked[k] = true
		}
	}
	l.acked += len(b.series) * (b.to - b.from)
	l.trace = b.trace
	now := time.Now()
	if !l.last.IsZero() {
		l.gap = max(l.gap, now.Sub(l.last))
	}
	l.last = now
	l.acks = append(l.acks, ack{start, now})
}

// resumed keeps a pause of the writers from counting as a gap.
func (l *Ledger) resumed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = time.Now()
}

// count books the outcome of an attempt, and a fault that no writer should see when there is one.
func (l *Ledger) count(outcome, fault string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tries[outcome]++
	if fault != "" && len(l.faults) < 20 {
		l.faults = append(l.faults, fault)
	}
}

// Acks counts the acknowledged requests.
func (l *Ledger) Acks() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acks)
}

// Samples counts those that were sent, and those of them that were acknowledged.
func (l *Ledger) Samples() (sent, acked int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent, l.acked
}

// AckedSamples counts the acknowledged samples.
func (l *Ledger) AckedSamples() int {
	_, acked := l.Samples()
	return acked
}

// AckedSince gives the end of the first acknowledgement of an attempt that began at t or later.
func (l *Ledger) AckedSince(t time.Time) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var first time.Time
	for _, a := range slices.Backward(l.acks) {
		if a.end.Before(t) {
			break
		}
		if !a.start.Before(t) {
			first = a.end
		}
	}
	return first, !first.IsZero()
}

// Faults lists answers that were neither 2xx nor retryable nor a broken connection.
func (l *Ledger) Faults() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.faults)
}

// Summary counts samples and outcomes of attempts, for the log of a test.
func (l *Ledger) Summary() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d series, %d samples sent, %d acknowledged, attempts %v, longest time without an acknowledged write %s",
		len(l.series), l.sent, l.acked, l.tries, l.gap.Round(time.Millisecond))
}
