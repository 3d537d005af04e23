// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/deucaliondb/deucalion/cluster"
)

// OTLPOptions configure the receiver of OTLP metrics.
type OTLPOptions struct {
	// ConvertDelta sums up delta samples in the memory of this node; NativeDelta stores them as they come. Not both.
	ConvertDelta, NativeDelta bool
	// TypeAndUnitLabels adds the labels __type__ and __unit__.
	TypeAndUnitLabels bool
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
			EnableTypeAndUnitLabels: a.cfg.OTLP.TypeAndUnitLabels,
		})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerNode, a.cfg.Cluster.ID())
		note := &commitNote{}
		ctx := context.WithValue(r.Context(), commitNoteKey{}, note)
		receiver.ServeHTTP(&otlpWriter{ResponseWriter: w, note: note}, r.WithContext(ctx))
	})
}

type commitNoteKey struct{}

// commitNote is what became of the samples of a request. One goroutine, that of the request, writes and reads it.
type commitNote struct {
	err   error
	index uint64 // 0 if nothing was committed
}

// noting is an appendable whose commits are noted in their context.
type noting struct{ storage.AppendableV2 }

func (n noting) AppenderV2(ctx context.Context) storage.AppenderV2 {
	note, _ := ctx.Value(commitNoteKey{}).(*commitNote)
	return &notingAppender{AppenderV2: n.AppendableV2.AppenderV2(ctx), note: note}
}

type notingAppender struct {
	storage.AppenderV2
	note *commitNote // nil for a commit that is none of a request
}

func (a *notingAppender) Commit() error {
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
	note *commitNote
}

func (w *otlpWriter) WriteHeader(code int) {
	switch {
	case code != http.StatusOK:
		w.ResponseWriter.WriteHeader(code)
	case errors.Is(w.note.err, cluster.ErrTooLarge): // would fail for ever
		http.Error(w.ResponseWriter, w.note.err.Error(), http.StatusRequestEntityTooLarge)
	case w.note.err != nil:
		// Whether it was committed is not known. The same samples again do no harm.
		w.Header().Set("Retry-After", "1")
		http.Error(w.ResponseWriter, w.note.err.Error(), http.StatusServiceUnavailable)
	default:
		if w.note.index != 0 {
			w.Header().Set(headerIndex, strconv.FormatUint(w.note.index, 10))
		}
		w.ResponseWriter.WriteHeader(code)
	}
}
