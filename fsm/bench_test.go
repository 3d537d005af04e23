// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

const (
	benchSeries  = 10_000
	benchSamples = 2_000 // of an entry or a request
)

func benchLabels(i int) labels.Labels {
	return labels.FromStrings(model.MetricNameLabel, "http_requests_total", "instance", fmt.Sprintf("10.0.%d.%d:9090", i/250, i%250), "job", "api", "zone", "a")
}

// benchState knows benchSeries series. Nothing is flushed, so that the numbers
// are of the applier alone.
func benchState(b *testing.B) (*FSM, *raftLog) {
	f := openFSM(b, Options{Dir: b.TempDir(), Storage: storage.Options{Manual: true, FreezeSpan: 1e6 * time.Hour, FreezeSamples: 1 << 60}}, "")
	l := newLog(f)
	commit(b, f, l, func(x *Batch) {
		for i := range benchSeries {
			x.Series(seriesKey(benchLabels(i)), benchLabels(i))
			x.Float(base, 1)
		}
	})
	return f, l
}

// perSample reports the cost of each sample of b.N rounds.
func perSample(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/sample")
}

// BenchmarkApplyFloats applies entries of known series.
func BenchmarkApplyFloats(b *testing.B) {
	f, l := benchState(b)
	entries := make([][]byte, b.N)
	for n := range entries {
		e := &appendEntry{}
		round := n / (benchSeries / benchSamples)
		for i := range benchSamples {
			id := uint64((n*benchSamples+i)%benchSeries + 1)
			e.known.floats = append(e.known.floats, record.RefSample{Ref: refOf(id), T: base + int64(round+1)*15_000, V: float64(n)})
		}
		entries[n] = e.encode()
	}
	index := uint64(l.len())
	b.ReportAllocs()
	b.ResetTimer()
	for _, e := range entries {
		index++
		if r := f.Apply(index, 1, e); len(r.Refused) > 0 || r.Err != "" {
			b.Fatal(r)
		}
		f.Publish(index, 1)
	}
	b.StopTimer()
	perSample(b, benchSamples)
}

// BenchmarkBatchCommit is a write request from keys to applied samples, without
// Raft.
func BenchmarkBatchCommit(b *testing.B) {
	f, l := benchState(b)
	keys := make([][]byte, benchSeries)
	for i := range keys {
		keys[i] = seriesKey(benchLabels(i))
	}
	request := func(n int) Outcome {
		x := f.NewBatch()
		defer x.Release()
		ts := base + int64(n/(benchSeries/benchSamples)+1)*15_000
		for i := range benchSamples {
			k := (n*benchSamples + i) % benchSeries
			if !x.SeriesByKey(keys[k]) {
				b.Fatal("a series is not known")
			}
			x.Float(ts, float64(n))
		}
		out, err := x.Commit(b.Context(), l)
		require.NoError(b, err)
		return out
	}
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		n := l.len() * 1000
		for i := range b.N {
			if out := request(n + i); out.Floats != benchSamples {
				b.Fatal(out)
			}
		}
		perSample(b, benchSamples)
	})
	b.Run("retry", func(b *testing.B) {
		b.ReportAllocs()
		request(1 << 30)
		b.ResetTimer()
		for range b.N {
			if out := request(1 << 30); out.Floats != benchSamples {
				b.Fatal(out)
			}
		}
		perSample(b, benchSamples)
	})
}
