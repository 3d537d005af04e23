// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"math"
	"strings"

	"github.com/deucaliondb/deucalion/test/client"
)

// DeletesSummary is what a report says of the deletes of a run.
type DeletesSummary struct {
	Deletes, Acked int // calls that delete
	// Samples were acknowledged. Of all samples, those of Present must be there, those of Gone must not.
	Samples, Present, Gone int
}

// verdict is what is known of a sample that was sent.
type verdict int

const (
	perhaps verdict = iota
	present
	gone
)

// judge tells what is known of the sample at t of the call at index i.
func (s *deleteSeries) judge(i int, t int64) verdict {
	c := s.calls[i]
	deleted, touched := false, false
	for j, d := range s.calls {
		if !d.delete || t < d.first || t > d.last {
			continue
		}
		deleted = deleted || j > i && d.acked
		// One attempt that was acknowledged has no effect on what comes later.
		touched = touched || j > i || !d.once || !d.acked
	}
	switch {
	case deleted && c.acked && c.once:
		return gone
	case c.acked && !touched:
		return present
	}
	return perhaps
}

// each calls f for every sample that was sent.
func (s *deleteSeries) each(f func(x client.Sample, v verdict)) {
	for i, c := range s.calls {
		if c.delete {
			continue
		}
		for _, x := range c.samples() {
			f(client.Sample{T: x.Timestamp, Bits: math.Float64bits(x.Value)}, s.judge(i, x.Timestamp))
		}
	}
}

// Check returns the faults in what a node holds, at most limit and a line that counts the rest. It is called after Run; other series in
// data are no concern of it.
func (d *Deletes) Check(data client.Data, limit int) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := lineList{limit: limit}
	known := map[string]bool{}
	for _, s := range d.series {
		key := client.Key(s.labels)
		known[key] = true
		s.check(&out, key, data[key])
	}
	for _, key := range data.Keys() {
		if strings.Contains(key, `__name__="`+deleteMetric+`"`) && !known[key] {
			out.addf("series that was never sent: %s", key)
		}
	}
	return out.list()
}

func (s *deleteSeries) check(out *lineList, key string, samples []client.Sample) {
	held := map[int64]client.Sample{}
	for _, x := range samples {
		if _, twice := held[x.T]; twice {
			out.addf("sample twice: %s %s", key, x)
		}
		held[x.T] = x
	}
	s.each(func(want client.Sample, v verdict) {
		got, ok := held[want.T]
		delete(held, want.T)
		switch {
		case ok && got != want:
			out.addf("sample altered: %s has %s, sent was %s", key, got, want)
		case ok && v == gone:
			out.addf("deleted sample is there: %s %s", key, got)
		case !ok && v == present:
			out.addf("acknowledged sample that was not deleted is lost: %s %s", key, want)
		}
	})
	for _, x := range samples {
		if _, left := held[x.T]; left {
			out.addf("sample that was never sent: %s %s", key, x)
		}
	}
}

// Summary counts.
func (d *Deletes) Summary() DeletesSummary {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out DeletesSummary
	for _, s := range d.series {
		for _, c := range s.calls {
			switch {
			case c.delete && c.acked:
				out.Deletes++
				out.Acked++
			case c.delete:
				out.Deletes++
			case c.acked:
				out.Samples += deleteBatch
			}
		}
		s.each(func(_ client.Sample, v verdict) {
			switch v {
			case present:
				out.Present++
			case gone:
				out.Gone++
			}
		})
	}
	return out
}
