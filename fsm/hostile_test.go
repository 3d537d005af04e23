// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"
	"math"
	"runtime"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/stretchr/testify/require"
)

// hostileAppends are payloads that made TSDB's record decoder panic, loop, or
// allocate without bound.
func hostileAppends() map[string][]byte {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f} // 2^63-1
	all := append(append([]byte(nil), huge[:8]...), 0xff, 0x01)          // 2^64-1
	many := binary.AppendUvarint(nil, 1<<40)
	rec := func(tag section, t record.Type, parts ...[]byte) []byte {
		return putSection(nil, tag, 1, func(b []byte) []byte {
			b = append(b, byte(t))
			for _, p := range parts {
				b = append(b, p...)
			}
			return b
		})
	}
	ref, head := make([]byte, 8), make([]byte, 16)
	plain := []byte{0, 0, 0, 0}
	hist := func(schema int32) []byte { // reference, time, hint, schema, threshold, counts, sum
		b := binary.AppendVarint([]byte{0, 0, 0}, int64(schema))
		b = append(append(b, ref...), 0, 0)
		return append(b, ref...)
	}
	known := knownSections + secHistograms
	custom := knownSections + secCustomHistograms
	fhist := append(append([]byte{0, 0, 0, 0}, make([]byte, 24)...), ref...)
	return map[string][]byte{
		"labels without end":    rec(seriesSection, record.Series, ref, huge),
		"many labels":           rec(seriesSection, record.Series, ref, many),
		"long label":            rec(seriesSection, record.Series, ref, []byte{1}, all),
		"exemplar labels":       rec(knownSections+secExemplars, record.Exemplars, head, []byte{0, 0}, ref, huge),
		"spans":                 rec(known, record.HistogramSamples, head, hist(0), huge),
		"many spans":            rec(known, record.HistogramSamples, head, hist(0), many),
		"buckets":               rec(known, record.HistogramSamples, head, hist(0), []byte{0, 0}, many),
		"float spans":           rec(knownSections+secFloatHistograms, record.FloatHistogramSamples, head, fhist, many),
		"float buckets":         rec(knownSections+secFloatHistograms, record.FloatHistogramSamples, head, fhist, []byte{0, 0}, many),
		"custom values":         rec(custom, record.CustomBucketsHistogramSamples, head, hist(histogram.CustomBucketsSchema), plain, many),
		"unknown schema":        rec(known, record.HistogramSamples, head, hist(100), plain),
		"reserved schema":       rec(known, record.HistogramSamples, head, hist(20), plain),
		"custom in plain":       rec(known, record.HistogramSamples, head, hist(histogram.CustomBucketsSchema), plain, []byte{0}),
		"plain in custom":       rec(custom, record.CustomBucketsHistogramSamples, head, hist(0), plain),
		"another record":        rec(known, record.Samples),
		"second format version": rec(knownSections+secFloats, record.SamplesV2),
		"metadata":              putSection(nil, metaSection, 1, func(b []byte) []byte { return append(append(b, 1), all...) }),
	}
}

func TestDecodeHostile(t *testing.T) {
	for name, p := range hostileAppends() {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			require.ErrorIs(t, new(appendEntry).decode(p), ErrFormat)
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
		})
	}
}

func TestDecodeHostileOthers(t *testing.T) {
	all := binary.AppendUvarint(nil, math.MaxUint64)
	_, err := decodeDelete(all)
	require.ErrorIs(t, err, ErrFormat)
	_, err = decodeClean(all)
	require.ErrorIs(t, err, ErrFormat)
	_, err = decodeUserSnapshot(all)
	require.ErrorIs(t, err, ErrFormat)
	require.Error(t, new(Result).UnmarshalBinary(append([]byte{resultVersion, 0, 0}, all...)))
}
