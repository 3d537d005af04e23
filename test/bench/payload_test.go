// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
)

func makeSeries(n int) []*series {
	out := make([]*series, n)
	for i := range out {
		out[i] = newSeries(i, 8, i%2 == 0)
	}
	return out
}

// The requests are written byte by byte; Prometheus's own decoders must find in them what was meant.
func TestPayloads(t *testing.T) {
	const n = 300
	b := labels.NewScratchBuilder(8)
	for name, decode := range map[string]struct {
		build func([]*series) *payload
		parse func(raw []byte) (ls []labels.Labels, times []int64, values []float64, err error)
	}{
		"v1": {newPayloadV1, func(raw []byte) (ls []labels.Labels, times []int64, values []float64, err error) {
			var r prompb.WriteRequest
			err = r.Unmarshal(raw)
			for _, ts := range r.Timeseries {
				ls, times, values = append(ls, ts.ToLabels(&b, nil)), append(times, ts.Samples[0].Timestamp), append(values, ts.Samples[0].Value)
			}
			return
		}},
		"v2": {newPayloadV2, func(raw []byte) (ls []labels.Labels, times []int64, values []float64, err error) {
			var r writev2.Request
			err = r.Unmarshal(raw)
			for _, ts := range r.Timeseries {
				l, err := ts.ToLabels(&b, r.Symbols)
				if err != nil {
					return nil, nil, nil, err
				}
				ls, times, values = append(ls, l), append(times, ts.Samples[0].Timestamp), append(values, ts.Samples[0].Value)
			}
			return
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := decode.build(makeSeries(n))
			rng := rand.New(rand.NewPCG(1, 1))
			seen := map[string]bool{}
			for _, at := range []int64{1_700_000_000_000, 1_800_000_000_000, maxTime, minTime} {
				raw, err := snappy.Decode(nil, p.fill(at, rng))
				require.NoError(t, err)
				ls, times, values, err := decode.parse(raw)
				require.NoError(t, err)
				require.Len(t, ls, n)
				for i := range ls {
					seen[ls[i].String()] = true
					require.Equal(t, 8, ls[i].Len())
					require.Equal(t, at, times[i])
					require.Equal(t, p.series[i].value, values[i])
					require.Equal(t, math.Round(values[i]*100)/100, values[i], "two decimals")
				}
			}
			require.Len(t, seen, n, "every series has labels of its own")
		})
	}
}

// Random values must not compress: snappy finds nothing in them, and so TSDB's XOR will not either.
func TestRandomValues(t *testing.T) {
	ss := makeSeries(1)
	rng := rand.New(rand.NewPCG(1, 1))
	size := func() int {
		var raw []byte
		for range 1000 {
			raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(ss[0].next(rng)))
		}
		return len(snappy.Encode(nil, raw))
	}
	require.Less(t, size(), 7000)
	ss[0].random = true
	require.Greater(t, size(), 7900)
}
