// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/deucaliondb/deucalion/cluster"
)

// OTLPOptions configure the receiver of OTLP metrics.
type OTLPOptions struct {
	// ConvertDelta sums up delta samples in the memory of this node; NativeDelta stores them as they come. Not both.
	ConvertDelta, NativeDelta bool
}

// newOTLP is Prometheus's receiver, with one thing put right: it answers 200 when the commit of the samples fails.
// Here the commit leaves a note in the context of the request, and its failure is the answer. With ConvertDelta the
// library starts a goroutine that forgets idle series; it cannot be stopped and lives as long as the process.
func (a *API) newOTLP() http.Handler {
	receiver := remote.NewOTLPWriteHandler(a.logger.With("component", "OTLP"), a.cfg.Registerer, noting{a.cfg.Appendable},
		a.cfg.PrometheusConfig, remote.OTLPOptions{
			ConvertDelta:            a.cfg.OTLP.ConvertDelta,
			NativeDelta:             a.cfg.OTLP.NativeDelta,
			LookbackDelta:           a.cfg.LookbackDelta,
			EnableTypeAndUnitLabels: a.cfg.TypeAndUnitLabels,
		})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerNode, a.cfg.Cluster.ID())
		note := &commitNote{}
		ctx := context.WithValue(r.Context(), commitNoteKey{}, note)
		sure, never := a.cfg.Cluster.Newest()
		receiver.ServeHTTP(&otlpWriter{ResponseWriter: w, note: note, doubt: never.Sub(sure) > clockDoubt}, r.WithContext(ctx))
	})
}

// clockDoubt is by how much the clocks must disagree at least before a refusal may be their fault.
const clockDoubt = time.Second

type commitNoteKey struct{}

// commitNote is what became of the samples of a request. One goroutine, that of the request, writes and reads it.
type commitNote struct {
	err      error
	disputed error  // the clocks disagree about a sample
	begun    bool   // the request was understood
	index    uint64 // 0 if nothing was committed
}

// noting is an appendable whose commits are noted in their context.
type noting struct{ storage.AppendableV2 }

func (n noting) AppenderV2(ctx context.Context) storage.AppenderV2 {
	note, _ := ctx.Value(commitNoteKey{}).(*commitNote)
	if note != nil {
		note.begun = true
	}
	return &notingAppender{AppenderV2: n.AppendableV2.AppenderV2(ctx), note: note}
}

type notingAppender struct {
	storage.AppenderV2
	note *commitNote // nil for a commit that is none of a request
}

// Append implements storage.AppenderV2. The receiver takes samples out of bounds for the sender's fault, which they are not
// when this node's clock may be wrong.
func (a *notingAppender) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AppendV2Options) (storage.SeriesRef, error) {
	ref, err := a.AppenderV2.Append(ref, ls, st, t, v, h, fh, o)
	if a.note != nil && errors.Is(err, cluster.ErrClockOff) {
		a.note.disputed = err
	}
	return ref, err
}

// Commit implements storage.AppenderTransaction. Nothing is committed of a request that will come again, for then it would be
// answered as if it were.
func (a *notingAppender) Commit() error {
	if a.note != nil && a.note.disputed != nil {
		return errors.Join(a.note.disputed, a.Rollback())
	}
	err := a.AppenderV2.Commit()
	if a.note == nil {
		return err
	}
	a.note.err = errors.Join(a.note.err, err)
	if i, ok := a.AppenderV2.(interface{ Index() uint64 }); ok {
		a.note.index = max(a.note.index, i.Index())
	}
	return err
}

// otlpWriter turns an answer of success into the one that the note asks for.
type otlpWriter struct {
	http.ResponseWriter
	note     *commitNote
	doubt    bool // the clocks disagree
	answered bool // what the receiver says does not count
}

// Write implements http.ResponseWriter.
func (w *otlpWriter) Write(b []byte) (int, error) {
	if w.answered {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

// WriteHeader implements http.ResponseWriter.
func (w *otlpWriter) WriteHeader(code int) {
	switch {
	case w.note.disputed != nil:
		w.unavailable(w.note.disputed)
	case w.doubt && w.note.begun && code == http.StatusBadRequest:
		// The receiver itself refuses what is in the future of this machine's clock, and does not say so in another way.
		w.unavailable(fmt.Errorf("%w: try again, or another node", cluster.ErrClockOff))
	case code != http.StatusOK:
		w.ResponseWriter.WriteHeader(code)
	case errors.Is(w.note.err, cluster.ErrTooLarge): // would fail for ever
		http.Error(w.ResponseWriter, w.note.err.Error(), http.StatusRequestEntityTooLarge)
	case w.note.err != nil:
		// Whether it was committed is not known. The same samples again do no harm.
		w.unavailable(w.note.err)
	default:
		if w.note.index != 0 {
			w.Header().Set(headerIndex, strconv.FormatUint(w.note.index, 10))
		}
		w.ResponseWriter.WriteHeader(code)
	}
}

func (w *otlpWriter) unavailable(err error) {
	w.Header().Set("Retry-After", "1")
	http.Error(w.ResponseWriter, err.Error(), http.StatusServiceUnavailable)
	w.answered = true
}
