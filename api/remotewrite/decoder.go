// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"google.golang.org/protobuf/encoding/protowire"
)

// sink is what the decoders write to: an *fsm.Batch, or a recorder in the tests of the decoders.
type sink interface {
	SeriesByKey(key []byte) bool
	Series(key []byte, ls labels.Labels)
	Labels() labels.Labels
	Float(t int64, v float64)
	Histogram(t int64, h *histogram.Histogram)
	FloatHistogram(t int64, fh *histogram.FloatHistogram)
	Exemplar(e exemplar.Exemplar)
	Metadata(family string, m metadata.Metadata)
}

// decoder walks one request. Its buffers are reused by the next one; it is not goroutine-safe.
type decoder struct {
	sink     sink
	sure     int64 // ms; samples later than this are not taken
	never    int64 // ms; those later than this are refused
	maxLabel int   // bytes that the labels of one series may take

	typeAndUnit bool // of v2 series become labels

	take   func(bytes int) error // counts memory as in flight; nil: nobody counts
	credit int                   // bytes that are taken and not spent

	refused  refusals
	disputed bool // there was a sample between sure and never

	key     []byte   // of the current series, where it could not be taken from the body
	parts   []part   // of the current series
	symbols [][]byte // of a v2 request
	series  [][]byte // of a v2 request
	refs    []uint32
	told    []metadataV2 // by symbol: the metadata last handed over for the metric of that name
	builder labels.ScratchBuilder
}

// part is a sample, histogram or exemplar message of the series at hand: nothing of a series is written before all
// of it was seen, for its labels may come last.
type part struct {
	num protowire.Number
	raw []byte
}

// reset makes d ready for a request that goes to s.
func (d *decoder) reset(s sink, sure, never int64, maxLabel int) {
	d.sink, d.sure, d.never, d.maxLabel = s, sure, never, maxLabel
	d.refused, d.disputed = refusals{}, false
}

// release drops what points into the body of the request, and buffers that an unusual request has blown up.
func (d *decoder) release() {
	d.parts = d.parts[:cap(d.parts)]
	d.key, d.refs, d.told = emptied(d.key), emptied(d.refs), emptied(d.told)
	d.parts, d.symbols, d.series = emptied(d.parts), emptied(d.symbols), emptied(d.series)
	d.builder.Reset()
	d.sink, d.credit = nil, 0
}

// emptied is the buffer b for the next request, without what it holds, or none if it has grown too large to be kept.
func emptied[T any](b []T) []T {
	const keep = 64 << 10
	if cap(b) > keep {
		return nil
	}
	clear(b)
	return b[:0]
}

// enter makes the series with this key current. It returns false, and has noted why, if the series is refused;
// n is how many samples go with it. An error means that the request is malformed.
func (d *decoder) enter(key []byte, n int) (bool, error) {
	if len(key) > d.maxLabel {
		d.refused.add(reasonLabels, n, labelsTooLong, nameInKey(key), d.maxLabel)
		return false, checkLabels(key)
	}
	if d.sink.SeriesByKey(key) {
		return true, nil
	}
	// The labels and the key are kept until the commit. In version 2 they are longer than the references to them.
	if err := d.spend(2 * len(key)); err != nil {
		return false, err
	}
	ls, err := d.labels(key)
	if err != nil {
		return false, err
	}
	if why := invalid(ls); why != "" {
		d.refused.add(reasonLabels, n, "%s", why)
		return false, nil
	}
	d.sink.Series(key, ls.WithoutEmpty())
	return true, nil
}

// float hands one sample of the current series over; of a series that was refused (!ok) it only checks the form.
func (d *decoder) float(b []byte, v2, ok bool) error {
	t, v, err := sample(b, v2)
	switch {
	case err != nil || !ok:
	case t > d.sure:
		d.tooNew(t)
	default:
		d.sink.Float(t, v)
	}
	return err
}

// tooNew refuses a sample of the current series that would drag the newest time of the whole cluster ahead.
func (d *decoder) tooNew(t int64) {
	if t <= d.never {
		d.disputed = true
		return
	}
	d.refused.add(reasonTooNew, 1, "%v: timestamp is too far in the future for series %v at %d", storage.ErrOutOfBounds, d.sink.Labels(), t)
}
