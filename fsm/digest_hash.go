// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/deucaliondb/deucalion/internal/plant"
	"github.com/deucaliondb/deucalion/storage"
)

const (
	// digestSlice is how long a digest works before it rests digestRest times as
	// long: a fifth of one core.
	digestSlice = 20 * time.Millisecond
	digestRest  = 4
)

// pacer spreads work out.
type pacer struct {
	hurry bool
	since time.Time
	n     int
}

func newPacer(hurry bool) *pacer { return &pacer{hurry: hurry, since: time.Now()} }

// step is called often; it looks at the clock now and then.
func (p *pacer) step(ctx context.Context) error {
	if p.n++; p.n&1023 != 0 {
		return nil
	}
	worked := time.Since(p.since)
	if p.hurry || worked < digestSlice {
		return ctx.Err()
	}
	t := time.NewTimer(digestRest * worked)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	p.since = time.Now()
	return ctx.Err()
}

// hasher feeds values to xxhash in an encoding without ambiguities.
type hasher struct {
	d   *xxhash.Digest
	buf []byte
}

func newHasher() *hasher { return &hasher{d: xxhash.New(), buf: make([]byte, 0, 4096)} }

func (h *hasher) reset() {
	h.d.Reset()
	h.buf = h.buf[:0]
}

func (h *hasher) flush() {
	_, _ = h.d.Write(h.buf) // never fails
	h.buf = h.buf[:0]
}

func (h *hasher) sum() uint64 {
	h.flush()
	return h.d.Sum64()
}

func hashText(v uint64) string { return fmt.Sprintf("%016x", v) }

func (h *hasher) u64(v uint64) {
	if len(h.buf)+8 > cap(h.buf) {
		h.flush()
	}
	h.buf = binary.LittleEndian.AppendUint64(h.buf, v)
}

func (h *hasher) i64(v int64) { h.u64(uint64(v)) }

func (h *hasher) f64(v float64) { h.u64(math.Float64bits(v)) }

func (h *hasher) str(s string) {
	h.u64(uint64(len(s)))
	h.flush()
	_, _ = h.d.WriteString(s)
}

func (h *hasher) labels(ls labels.Labels) {
	h.u64(uint64(ls.Len()))
	ls.Range(func(l labels.Label) {
		h.str(l.Name)
		h.str(l.Value)
	})
}

// Types of samples in a hash.
const (
	hashFloat = iota
	hashStale
	hashHistogram
	hashFloatHistogram
	hashGauge = 1 << 8 // or-ed to the type of a histogram
)

// sample hashes the current sample of it and returns its time. What a layout may
// change does not count: the type of a stale marker, the reset hint of a counter,
// the spans and empty buckets of a histogram.
func (h *hasher) sample(it chunkenc.Iterator, vt chunkenc.ValueType) int64 {
	var x storage.Sample
	switch vt {
	case chunkenc.ValHistogram:
		x.T, x.H = it.AtHistogram(nil)
	case chunkenc.ValFloatHistogram:
		x.T, x.FH = it.AtFloatHistogram(nil)
	default:
		x.T, x.V = it.At()
	}
	h.i64(x.T)
	switch {
	case isStale(x):
		h.u64(hashStale)
	case x.H != nil:
		h.histogram(x.H)
	case x.FH != nil:
		h.floatHistogram(x.FH)
	default:
		h.u64(hashFloat)
		if !plant.BlindDigest {
			h.f64(x.V)
		}
	}
	return x.T
}

func gaugeBit(c histogram.CounterResetHint) uint64 {
	if c == histogram.GaugeType {
		return hashGauge
	}
	return 0
}

func (h *hasher) histogram(x *histogram.Histogram) {
	h.u64(hashHistogram | gaugeBit(x.CounterResetHint))
	h.i64(int64(x.Schema))
	h.f64(x.ZeroThreshold)
	h.u64(x.ZeroCount)
	h.u64(x.Count)
	h.f64(x.Sum)
	for _, side := range []struct {
		spans  []histogram.Span
		deltas []int64
	}{{x.PositiveSpans, x.PositiveBuckets}, {x.NegativeSpans, x.NegativeBuckets}} {
		count := int64(0)
		h.buckets(side.spans, len(side.deltas), func(i int) uint64 {
			count += side.deltas[i]
			return uint64(count)
		})
	}
	h.floats(x.CustomValues)
}

func (h *hasher) floatHistogram(x *histogram.FloatHistogram) {
	h.u64(hashFloatHistogram | gaugeBit(x.CounterResetHint))
	h.i64(int64(x.Schema))
	h.f64(x.ZeroThreshold)
	h.f64(x.ZeroCount)
	h.f64(x.Count)
	h.f64(x.Sum)
	for _, side := range []struct {
		spans  []histogram.Span
		counts []float64
	}{{x.PositiveSpans, x.PositiveBuckets}, {x.NegativeSpans, x.NegativeBuckets}} {
		h.buckets(side.spans, len(side.counts), func(i int) uint64 {
			if side.counts[i] == 0 { // also the negative zero
				return 0
			}
			return math.Float64bits(side.counts[i])
		})
	}
	h.floats(x.CustomValues)
}

// buckets hashes those that are not empty with their indexes. count is called for
// each of the n buckets in order.
func (h *hasher) buckets(spans []histogram.Span, n int, count func(i int) uint64) {
	index, i, used := int64(0), 0, uint64(0)
	for _, s := range spans {
		index += int64(s.Offset)
		for k := uint32(0); k < s.Length && i < n; k++ {
			if c := count(i); c != 0 {
				h.i64(index)
				h.u64(c)
				used++
			}
			i++
			index++
		}
	}
	h.u64(used)
}

func (h *hasher) floats(vs []float64) {
	h.u64(uint64(len(vs)))
	for _, v := range vs {
		h.f64(v)
	}
}

// stateHash hashes what must be equal on all nodes and is not a sample. Index and
// term are left out: those of the entry are the same by themselves. So are the
// pending cleans, which are how far this node is, and the list of deletes, of
// which a node that came from an old snapshot knows less.
func (s *Snapshot) stateHash(ctx context.Context, p *pacer) (uint64, error) {
	h := newHasher()
	c := s.header
	for _, v := range []int64{c.MaxT, c.Cutoff, c.DropHorizon, int64(c.NextID), int64(c.Settings.OutOfOrderWindow), c.Settings.MaxExemplars, int64(c.Settings.MinVersion)} {
		h.i64(v)
	}
	h.str(c.Settings.ClusterID)
	h.u64(uint64(len(c.Requests)))
	for _, id := range c.Requests {
		h.str(id)
	}
	slices.SortFunc(s.series, func(a, b seriesState) int { return cmp.Compare(a.id, b.id) })
	h.u64(uint64(len(s.series)))
	for _, x := range s.series {
		h.u64(x.id)
		h.i64(x.lastT)
		h.u64(uint64(x.kind))
		h.labels(x.labels)
		if err := p.step(ctx); err != nil {
			return 0, err
		}
	}
	h.u64(uint64(len(s.exemplars)))
	for _, x := range s.exemplars {
		h.labels(x.series)
		h.labels(x.Labels)
		h.i64(x.Ts)
		h.f64(x.Value)
		if err := p.step(ctx); err != nil {
			return 0, err
		}
	}
	h.u64(uint64(len(s.metadata)))
	for _, family := range slices.Sorted(maps.Keys(s.metadata)) {
		h.str(family)
		h.u64(uint64(len(s.metadata[family])))
		for _, m := range s.metadata[family] {
			h.str(string(m.Type))
			h.str(m.Unit)
			h.str(m.Help)
		}
	}
	if len(c.Shipped) > 0 { // else the hash is that of versions which do not know it
		h.u64(uint64(len(c.Shipped)))
		for _, name := range sortedKeys(c.Shipped) {
			h.str(name)
			h.u64(c.Shipped[name])
		}
	}
	return h.sum(), nil
}
