// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/storage"

	"github.com/deucaliondb/deucalion/fsm"
)

// AppendableOptions configure an Appendable.
type AppendableOptions struct {
	// FSM is this node's state, Proposer its way into the log.
	FSM      *fsm.FSM
	Proposer fsm.Proposer
	// ZeroSamples makes start timestamps into samples with the value zero, as the feature
	// created-timestamp-zero-ingestion of Prometheus does.
	ZeroSamples bool
	// Timeout bounds a Commit whose context has no deadline (default 10 s).
	Timeout    time.Duration
	Registerer prometheus.Registerer
}

// Appendable is Prometheus's way into the replicated log: both of its interfaces for scraping, rules and OTLP. A commit
// returns when the samples are on a majority of disks and applied, or with an error that says nothing about them; then
// the same samples may be sent again, which does no harm. Goroutine-safe; an appender belongs to one goroutine.
type Appendable struct {
	opts    AppendableOptions
	refused *prometheus.CounterVec
}

var (
	_ storage.Appendable   = (*Appendable)(nil)
	_ storage.AppendableV2 = (*Appendable)(nil)
)

// NewAppendable registers its metrics with o.Registerer.
func NewAppendable(o AppendableOptions) *Appendable {
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	return &Appendable{opts: o, refused: promauto.With(o.Registerer).NewCounterVec(prometheus.CounterOpts{
		Name: "deucalion_appender_refused_samples_total",
		Help: "Samples of scrapes, rules and OTLP that were refused, by reason.",
	}, []string{"reason"})}
}

// Appender implements storage.Appendable. ctx bounds the Commit.
func (a *Appendable) Appender(ctx context.Context) storage.Appender {
	return &appenderV1{base: a.begin(ctx)}
}

// AppenderV2 implements storage.AppendableV2. ctx bounds the Commit.
func (a *Appendable) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return &appenderV2{base: a.begin(ctx)}
}

func (a *Appendable) begin(ctx context.Context) *base {
	return &base{to: a, ctx: ctx, batch: a.opts.FSM.NewBatch()}
}
