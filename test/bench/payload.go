// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/golang/snappy"
)

// Timestamps (ms) between these take six bytes as a varint, so that they can be patched in place: 2004 to 2109.
const (
	minTime = 1 << 40
	maxTime = 1<<42 - 1
)

// series is a time series whose values the generator makes up as it goes.
type series struct {
	labels  [][2]string // sorted by name
	counter bool
	random  bool
	value   float64
}

// newSeries makes the i-th series with n labels: the name, one label that tells it apart, and others of the
// kind that targets have.
func newSeries(i, n int, counter bool) *series {
	name := fmt.Sprintf("bench_metric_%d", i%100)
	if counter {
		name += "_total"
	}
	s := &series{counter: counter, labels: [][2]string{
		{"__name__", name},
		{"id", fmt.Sprintf("series-%07d", i)},
	}}
	for j := range n - 2 {
		// Names sort after "id"; values repeat, as those of pods, zones and jobs do.
		s.labels = append(s.labels, [2]string{fmt.Sprintf("label_%02d", j), fmt.Sprintf("value-%d-%d", j, i%(10*(j+1)))})
	}
	return s
}

// next moves the value on: a counter by a whole number, a gauge by a step of two decimals, a random one anywhere.
func (s *series) next(rng *rand.Rand) float64 {
	switch {
	case s.random:
		s.value = rng.Float64()
	case s.counter:
		s.value += float64(rng.IntN(100))
	default:
		s.value = math.Round(s.value*100+rng.Float64()*200-100) / 100
	}
	return s.value
}

// payload is a request for a fixed list of series with one sample each. It is not safe for concurrent use.
type payload struct {
	series []*series
	raw    []byte // protobuf
	values []int  // places in raw of the values, eight bytes, then one byte, then six of the timestamp
	packed []byte // the compressed request, reused
}

// fill patches the next values at timestamp t (ms) into the request and compresses it. The result is valid
// until the next fill.
func (p *payload) fill(t int64, rng *rand.Rand) []byte {
	for i, at := range p.values {
		binary.LittleEndian.PutUint64(p.raw[at:], math.Float64bits(p.series[i].next(rng)))
		binary.PutUvarint(p.raw[at+9:], uint64(t))
	}
	p.packed = snappy.Encode(p.packed[:cap(p.packed)], p.raw)
	return p.packed
}

// sampleBytes is a sample whose value starts at offset 1 and whose timestamp starts at offset 10; both remote-write
// versions have field 1 double value, field 2 int64 timestamp.
func sampleBytes() []byte {
	b := append(make([]byte, 0, 16), 1<<3|1)
	b = append(b, make([]byte, 8)...)
	b = append(b, 2<<3)
	return binary.AppendUvarint(b, minTime)
}

// field appends a length-delimited protobuf field.
func field(b []byte, number int, content []byte) []byte {
	b = binary.AppendUvarint(b, uint64(number<<3|2))
	b = binary.AppendUvarint(b, uint64(len(content)))
	return append(b, content...)
}
