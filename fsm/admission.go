// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"math"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/deucaliondb/deucalion/storage"
)

// minHorizon is how far behind the newest sample of all any sample may be,
// whatever the out-of-order window: as far as in Prometheus, whose head spans
// half a block more than its newest hour.
const minHorizon = int64(time.Hour / time.Millisecond)

// horizon returns the admission floor: samples below are too old.
func horizon(maxT, cutoff int64, window time.Duration) int64 {
	if maxT == storage.NoTime {
		return cutoff
	}
	behind := max(window.Milliseconds(), minHorizon)
	if maxT < storage.NoTime+behind { // the difference would wrap round
		return cutoff
	}
	return max(cutoff, maxT-behind)
}

// admit decides on one sample of a series (DESIGN.md section 3):
//
//  1. below the floor: refused, too old;
//  2. newer than everything in its series: accepted;
//  3. its timestamp has a sample: accepted without effect if the value is the
//     same, so that a retry is harmless, else refused. The first write wins;
//  4. else out of order: accepted if there is a window.
//
// effect tells whether the sample is to be stored.
// ref may be nil, and lastT is then what a new series starts with.
func (f *FSM) admit(ref *storage.Ref, ls labels.Labels, lastT int64, x storage.Sample) (r Reason, effect bool, err error) {
	switch {
	case x.T < f.floor:
		return TooOld, false, nil
	case x.T > lastT:
		return Accepted, true, nil
	}
	old, found, err := f.store.Lookup(ref, ls, x.T)
	switch {
	case err != nil:
		return Invalid, false, err
	case found && same(old, x):
		return Accepted, false, nil
	case found:
		return Duplicate, false, nil
	}
	if f.settings.Load().OutOfOrderWindow == 0 {
		return OutOfOrder, false, nil
	}
	return Accepted, true, nil
}

// same tells whether two samples have the same value. Stale markers are all
// equal, whatever type a memtable gave them. Histograms are compared without
// empty buckets: those follow a sample's neighbours in its chunk.
func same(a, b storage.Sample) bool {
	switch {
	case isStale(a) || isStale(b):
		return isStale(a) && isStale(b)
	case a.H != nil:
		return b.H != nil && canonical(a.H).Equals(canonical(b.H)) && (a.H.CounterResetHint == histogram.GaugeType) == (b.H.CounterResetHint == histogram.GaugeType)
	case a.FH != nil:
		return b.FH != nil && canonicalFloat(a.FH).Equals(canonicalFloat(b.FH)) && (a.FH.CounterResetHint == histogram.GaugeType) == (b.FH.CounterResetHint == histogram.GaugeType)
	default:
		return b.H == nil && b.FH == nil && math.Float64bits(a.V) == math.Float64bits(b.V)
	}
}

func canonical(h *histogram.Histogram) *histogram.Histogram { return h.Copy().Compact(0) }

func canonicalFloat(h *histogram.FloatHistogram) *histogram.FloatHistogram {
	return h.Copy().Compact(0)
}

func isStale(x storage.Sample) bool {
	switch {
	case x.H != nil:
		return value.IsStaleNaN(x.H.Sum)
	case x.FH != nil:
		return value.IsStaleNaN(x.FH.Sum)
	default:
		return value.IsStaleNaN(x.V)
	}
}

func kindOf(x storage.Sample) valueKind {
	switch {
	case x.H != nil:
		return histogramKind
	case x.FH != nil:
		return floatHistogramKind
	default:
		return floatKind
	}
}

// typed gives a float stale marker the type of the series it ends.
func typed(x storage.Sample, k valueKind) storage.Sample {
	if x.H != nil || x.FH != nil || !value.IsStaleNaN(x.V) {
		return x
	}
	switch k {
	case histogramKind:
		return storage.Sample{T: x.T, H: &histogram.Histogram{Sum: x.V}}
	case floatHistogramKind:
		return storage.Sample{T: x.T, FH: &histogram.FloatHistogram{Sum: x.V}}
	default:
		return x
	}
}
