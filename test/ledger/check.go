// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"math"
	"slices"

	"github.com/deucaliondb/deucalion/test/client"
)

// Check holds what a server has against the book: every acknowledged sample must be there, and nothing that
// was never sent, no series of others either. It returns at most limit findings; nil is as it should be.
// No writer may run meanwhile.
func (l *Ledger) Check(data client.Data, limit int) []string {
	return l.Audit(data).Strings(limit)
}

// Finding is a difference between the book and what a server has.
type Finding struct {
	Lost bool  // acknowledged and not there; else there and never sent, or not as it was sent
	T    int64 // timestamp of the sample, ms; 0 for a series of others
	Text string
}

// Findings is what an audit gave; empty is as it should be.
type Findings []Finding

// Count tells how many samples were lost, and how many are there that were not sent so.
func (f Findings) Count() (lost, ghosts int) {
	for _, one := range f {
		if one.Lost {
			lost++
		} else {
			ghosts++
		}
	}
	return lost, ghosts
}

// Strings are at most limit findings, and a count of the rest.
func (f Findings) Strings(limit int) []string {
	var out []string
	for _, one := range f[:min(limit, len(f))] {
		out = append(out, one.Text)
	}
	if more := len(f) - limit; more > 0 {
		out = append(out, fmt.Sprintf("and %d more findings", more))
	}
	return out
}

// Audit is Check with every finding.
func (l *Ledger) Audit(data client.Data) Findings {
	l.mu.Lock()
	defer l.mu.Unlock()
	var c checker
	known := map[string]bool{}
	for _, s := range l.series {
		key := client.Key(s.labels)
		known[key] = true
		c.series(s, key, data[key])
	}
	for _, key := range data.Keys() {
		if !known[key] {
			c.addf(false, 0, "series that was never sent: %s", key)
		}
	}
	return c.found
}

type checker struct{ found Findings }

func (c *checker) addf(lost bool, t int64, format string, args ...any) {
	c.found = append(c.found, Finding{Lost: lost, T: t, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) series(s *series, key string, got []client.Sample) {
	sent := s.index()
	present := make([]bool, len(s.times))
	for _, sample := range got {
		k, ok := sent(sample.T)
		switch {
		case !ok:
			c.addf(false, sample.T, "sample that was never sent: %s %s", key, sample)
		case present[k]:
			c.addf(false, sample.T, "sample twice: %s %s", key, sample)
		case sample != s.sample(k):
			c.addf(false, sample.T, "sample altered: %s sent %s, found %s", key, s.sample(k), sample)
		}
		if ok {
			present[k] = true
		}
	}
	for k, acked := range s.acked {
		if acked && !present[k] {
			c.addf(true, s.times[k], "acknowledged sample lost: %s %s", key, s.sample(k))
		}
	}
}

// index gives a function that finds the place of a timestamp in the order of sending.
func (s *series) index() func(t int64) (int, bool) {
	if slices.IsSorted(s.times) {
		return func(t int64) (int, bool) { return slices.BinarySearch(s.times, t) }
	}
	places := make(map[int64]int, len(s.times))
	for k, t := range s.times {
		places[t] = k
	}
	return func(t int64) (int, bool) {
		k, ok := places[t]
		return k, ok
	}
}

// sample is the k-th sample as a server must give it back.
func (s *series) sample(k int) client.Sample {
	t := s.times[k]
	if s.hist {
		h := s.histogram(k, t)
		return client.Sample{T: t, Hist: client.Histogram(&h)}
	}
	return client.Sample{T: t, Bits: math.Float64bits(s.value(k))}
}
