// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/deucaliondb/deucalion/internal/plant"
)

// Ref is a series' place in the active memtable. The zero Ref knows nothing.
// It belongs to the caller, who keeps one a series and passes it to each
// Append; a Ref of a former memtable is recognised and renewed. (A head starts
// its refs at 1 and does not check labels: a stale ref alone would write into a
// foreign series.)
type Ref struct {
	gen uint64
	ref storage.SeriesRef
}

// Sample is one sample: a float, or a histogram if one of the pointers is set.
type Sample struct {
	T  int64
	V  float64
	H  *histogram.Histogram
	FH *histogram.FloatHistogram
}

// Appender adds samples to the active memtable. It must end with Commit or
// Rollback before anything else is called by the applier.
type Appender struct {
	m   *memtable
	app storage.AppenderV2
}

// Appender returns an Appender. Applier only, one at a time.
func (s *Store) Appender() Appender {
	return Appender{m: s.active, app: s.active.head.AppenderV2(context.Background())}
}

// Append adds a sample that was admitted: its series has no sample at that
// timestamp. An error is a broken invariant. Histograms belong to the store
// from here on.
func (a Appender) Append(r *Ref, ls labels.Labels, x Sample) error {
	ref := r.ref
	if r.gen != a.m.gen && !plant.StaleSeriesRef {
		ref = 0
	}
	ref, err := a.app.Append(ref, ls, 0, x.T, x.V, x.H, x.FH, storage.AOptions{})
	if err != nil {
		return fmt.Errorf("append %s at %d: %w", ls, x.T, err)
	}
	r.gen, r.ref = a.m.gen, ref
	a.m.noteTime(x.T)
	return nil
}

// Commit makes the samples visible to queries.
func (a Appender) Commit() error { return a.app.Commit() }

// Rollback drops the samples.
func (a Appender) Rollback() error { return a.app.Rollback() }
