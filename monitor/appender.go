// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

var errEnded = errors.New("appender was committed or rolled back before")

// base is what both kinds of appenders do. What the state of this node says of a sample is told by add, as Prometheus's
// callers want it: a refusal that a commit reports would fail a whole scrape, or with OTLP pass unseen.
type base struct {
	to       *Appendable
	ctx      context.Context
	batch    *fsm.Batch // nil after the end
	oldest   int64      // ms; earlier samples are refused
	sure     int64      // ms; later samples are refused, and those up to never may come again
	never    int64
	reported int    // refusals that add has returned
	index    uint64 // of the commit
}

// Index is the log index that holds what Commit has committed, 0 before.
func (b *base) Index() uint64 { return b.index }

// add puts a sample into the batch and returns the ref of its series: any number but zero that stays the same, for the
// scraper tracks the staleness of series by it. It means nothing to us: the label set finds the series.
func (b *base) add(ref storage.SeriesRef, ls labels.Labels, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, rejectOutOfOrder bool) (storage.SeriesRef, error) {
	if b.batch == nil {
		return 0, errEnded
	}
	if ls.IsEmpty() {
		return 0, errors.New("sample without labels")
	}
	if name, duplicate := ls.HasDuplicateLabelNames(); duplicate {
		return 0, fmt.Errorf(`label name "%s" is not unique`, name)
	}
	if t < b.oldest || t > b.sure {
		return 0, b.outside(t)
	}
	b.batch.Series(nil, ls)
	if rejectOutOfOrder && t < b.batch.NewestTime() { // at the newest time, the value decides
		return 0, storage.ErrOutOfOrderSample
	}
	switch {
	case fh != nil:
		if err := fh.Validate(); err != nil {
			return 0, err
		}
		b.batch.FloatHistogram(t, fh)
	case h != nil:
		if err := h.Validate(); err != nil {
			return 0, err
		}
		b.batch.Histogram(t, h)
	default:
		b.batch.Float(t, v)
	}
	if r := b.batch.Verdict(); r != fsm.Accepted {
		b.reported++
		b.to.refused.WithLabelValues(r.String()).Inc()
		return 0, refusal(r)
	}
	if ref == 0 {
		ref = storage.SeriesRef(ls.Hash() | 1<<63)
	}
	return ref, nil
}

// refusal is the error that Prometheus's storage returns for r. It calls what is too old out of bounds unless it takes
// samples out of order: a scrape goes on without such a sample, and fails on any other error.
func refusal(r fsm.Reason) error {
	if r == fsm.TooOld {
		return fmt.Errorf("%w: %w", storage.ErrOutOfBounds, r.Err())
	}
	return r.Err()
}

// outside refuses a sample of a time that is not known to be right. One in the future would make the whole cluster refuse
// those of the present, one in the past would stand there beside others.
func (b *base) outside(t int64) error {
	if t >= b.oldest && t <= b.never {
		return fmt.Errorf("%w: %w", storage.ErrOutOfBounds, cluster.ErrClockOff)
	}
	b.to.refused.WithLabelValues(fsm.OutOfBounds.String()).Inc()
	return storage.ErrOutOfBounds
}

// zero adds the sample that says that a counter began at st. It is best effort: what is older than the series'
// newest sample is left out.
func (b *base) zero(ls labels.Labels, st, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) {
	if st <= 0 || st >= t || st > b.sure || b.batch == nil {
		return
	}
	b.batch.Series(nil, ls)
	if st <= b.batch.NewestTime() {
		return
	}
	switch {
	case fh != nil:
		b.batch.FloatHistogram(st, &histogram.FloatHistogram{
			CounterResetHint: histogram.CounterReset, Schema: fh.Schema, ZeroThreshold: fh.ZeroThreshold, CustomValues: fh.CustomValues,
		})
	case h != nil:
		b.batch.Histogram(st, &histogram.Histogram{
			CounterResetHint: histogram.CounterReset, Schema: h.Schema, ZeroThreshold: h.ZeroThreshold, CustomValues: h.CustomValues,
		})
	default:
		b.batch.Float(st, 0)
	}
	if b.batch.Verdict() != fsm.Accepted {
		b.reported++
	}
}

func (b *base) exemplars(ls labels.Labels, es ...exemplar.Exemplar) {
	if b.batch == nil || len(es) == 0 {
		return
	}
	b.batch.Series(nil, ls)
	for _, e := range es {
		b.batch.Exemplar(e)
	}
}

// Commit implements storage.AppenderTransaction. Samples that another writer has overtaken meanwhile are counted and are
// no error, as in Prometheus.
func (b *base) Commit() error {
	if b.batch == nil {
		return errEnded
	}
	defer b.end()
	ctx, cancel := context.WithTimeout(b.ctx, b.to.opts.Timeout)
	defer cancel()
	out, err := b.batch.Commit(ctx, b.to.opts.Proposer)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	b.index = out.Index
	total := 0
	for _, n := range out.Refused {
		total += n
	}
	if late := total - b.reported; late > 0 {
		b.to.refused.WithLabelValues("overtaken").Add(float64(late))
	}
	return nil
}

// Rollback implements storage.AppenderTransaction.
func (b *base) Rollback() error {
	if b.batch == nil {
		return errEnded
	}
	b.end()
	return nil
}

func (b *base) end() {
	b.batch.Release()
	b.batch = nil
}
