// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/prompb"
)

// Sample is one sample in a form that compares by ==.
type Sample struct {
	T    int64  // ms
	Bits uint64 // of the float value, so that NaNs and stale markers compare; 0 for a histogram
	Hist string // canonical form of a histogram, "" for a float
}

// String shows a sample for a failure message.
func (s Sample) String() string {
	if s.Hist != "" {
		return fmt.Sprintf("%s @%d", s.Hist, s.T)
	}
	return fmt.Sprintf("%v (%#x) @%d", math.Float64frombits(s.Bits), s.Bits, s.T)
}

// Data is what a server holds: series, in the notation of Key, to samples in order of time.
type Data map[string][]Sample

// Key writes labels as {name="value",...}, sorted by name.
func Key(ls []prompb.Label) string {
	ls = slices.Clone(ls)
	slices.SortFunc(ls, func(a, b prompb.Label) int { return cmp.Compare(a.Name, b.Name) })
	var b strings.Builder
	b.WriteByte('{')
	for i, l := range ls {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s=%q", l.Name, l.Value)
	}
	b.WriteByte('}')
	return b.String()
}

// Histogram writes a histogram in canonical form. Timestamp and reset hint are left out: the hint says
// how a chunk was cut, which is no part of the data.
func Histogram(h *prompb.Histogram) string {
	c := *h
	c.Timestamp, c.ResetHint = 0, 0
	return c.String()
}

func samplesOf(ts *prompb.TimeSeries) []Sample {
	out := make([]Sample, 0, len(ts.Samples)+len(ts.Histograms))
	for _, s := range ts.Samples {
		out = append(out, Sample{T: s.Timestamp, Bits: math.Float64bits(s.Value)})
	}
	for i := range ts.Histograms {
		h := &ts.Histograms[i]
		out = append(out, Sample{T: h.Timestamp, Hist: Histogram(h)})
	}
	slices.SortStableFunc(out, func(a, b Sample) int { return cmp.Compare(a.T, b.T) })
	return out
}

// Len counts the samples.
func (d Data) Len() int {
	n := 0
	for _, samples := range d {
		n += len(samples)
	}
	return n
}

// Keys lists the series in order.
func (d Data) Keys() []string {
	keys := make([]string, 0, len(d))
	for k := range d {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Digest is a hash of every series and sample: equal for equal data.
func (d Data) Digest() string {
	h := sha256.New()
	for _, key := range d.Keys() {
		fmt.Fprintf(h, "%s\n", key)
		for _, s := range d[key] {
			fmt.Fprintf(h, "%d %x %s\n", s.T, s.Bits, s.Hist)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
