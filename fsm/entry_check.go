// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"errors"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/record"
)

// maxLabel bounds a label name or value: package labels panics on longer ones.
const maxLabel = 1<<24 - 1

var errSchema = errors.New("histogram schema that this section cannot hold")

// checkRecord walks a record of an append entry before TSDB decodes it. The
// decoder trusts counts (it allocates, or loops, as often as they say) and
// leaves out histograms of a schema that it does not know, which would shift the
// positions of all that follow.
func checkRecord(rec []byte, want record.Type) error {
	w := walk{encoding.Decbuf{B: rec}}
	if record.Type(w.Byte()) != want {
		return errUnknownSection
	}
	if want == record.Samples || w.Len() == 0 {
		return nil // the decoder allocates for samples what there are bytes for
	}
	if want != record.Series {
		w.skip(16) // the first ref and time
	}
	for w.Len() > 0 && w.Err() == nil {
		switch want {
		case record.Series:
			w.skip(8)
			w.labels()
		case record.Exemplars:
			w.Varint64()
			w.Varint64()
			w.skip(8)
			w.labels()
		default:
			w.Varint64()
			w.Varint64()
			w.histogram(
				want == record.FloatHistogramSamples || want == record.CustomBucketsFloatHistogramSamples,
				want == record.CustomBucketsHistogramSamples || want == record.CustomBucketsFloatHistogramSamples,
			)
		}
	}
	return w.Err()
}

// walk reads a record without keeping anything.
type walk struct{ encoding.Decbuf }

// count reads the number of things of at least size bytes each.
func (w *walk) count(size int) int {
	n := w.Uvarint64()
	if n > uint64(w.Len()/size) {
		w.E = encoding.ErrInvalidSize
		return 0
	}
	return int(n)
}

func (w *walk) skip(n int) {
	if w.E == nil && n > w.Len() {
		w.E = encoding.ErrInvalidSize
	}
	if w.E == nil {
		w.B = w.B[n:]
	}
}

func (w *walk) labels() {
	for range 2 * w.count(2) {
		n := w.count(1)
		if n > maxLabel {
			w.E = encoding.ErrInvalidSize
		}
		w.skip(n)
	}
}

func (w *walk) histogram(float, custom bool) {
	w.skip(1) // the reset hint
	schema := int32(w.Varint64())
	w.skip(8)
	if float {
		w.skip(16)
	} else {
		w.Uvarint64()
		w.Uvarint64()
	}
	w.skip(8)
	for range 2 { // spans
		for range 2 * w.count(2) {
			w.Uvarint64()
		}
	}
	for range 2 { // buckets
		if float {
			w.skip(8 * w.count(8))
			continue
		}
		for range w.count(1) {
			w.Uvarint64()
		}
	}
	if custom {
		w.skip(8 * w.count(8))
	}
	if w.E == nil && (histogram.IsCustomBucketsSchema(schema) != custom || !histogram.IsValidSchema(schema)) {
		w.E = errSchema
	}
}
