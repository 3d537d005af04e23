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
	l.mu.Lock()
	defer l.mu.Unlock()
	c := checker{limit: limit}
	known := map[string]bool{}
	for _, s := range l.series {
		key := client.Key(s.labels)
		known[key] = true
		c.series(s, key, data[key])
	}
	for _, key := range data.Keys() {
		if !known[key] {
			c.addf("series that was never sent: %s", key)
		}
	}
	if more := c.count - len(c.found); more > 0 {
		c.found = append(c.found, fmt.Sprintf("and %d more findings", more))
	}
	return c.found
}

type checker struct {
	found []string
	count int
	limit int
}

func (c *checker) addf(format string, args ...any) {
	if c.count++; c.count <= c.limit {
		c.found = append(c.found, fmt.Sprintf(format, args...))
	}
}

func (c *checker) series(s *series, key string, got []client.Sample) {
	present := make([]bool, len(s.times))
	for _, sample := range got {
		k, sent := slices.BinarySearch(s.times, sample.T)
		switch {
		case !sent:
			c.addf("sample that was never sent: %s %s", key, sample)
		case present[k]:
			c.addf("sample twice: %s %s", key, sample)
		case sample != s.sample(k):
			c.addf("sample altered: %s sent %s, found %s", key, s.sample(k), sample)
		}
		if sent {
			present[k] = true
		}
	}
	for k, acked := range s.acked {
		if acked && !present[k] {
			c.addf("acknowledged sample lost: %s %s", key, s.sample(k))
		}
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
