// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/storage"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

// AppendableOptions configure an Appendable.
type AppendableOptions struct {
	// FSM is this node's state, Proposer its way into the log.
	FSM      *fsm.FSM
	Proposer fsm.Proposer
	// Clock bounds timestamps (default: this machine's alone).
	Clock Clock
	// ZeroSamples makes start timestamps into samples with the value zero, as the feature
	// created-timestamp-zero-ingestion of Prometheus does.
	ZeroSamples bool
	// Timeout bounds a Commit whose context has no deadline (default 10 s).
	Timeout    time.Duration
	Registerer prometheus.Registerer
}

// Clock is what this package needs of *cluster.Node's.
type Clock interface {
	// Newest bounds the samples of clients: up to sure they may be stored, after never they are refused for good.
	Newest() (sure, never time.Time)
	// OwnTimes bounds the samples that this node stamps itself.
	OwnTimes() (oldest, newest time.Time)
}

// wallClock is the clock of a node on its own.
type wallClock struct{}

func (wallClock) OwnTimes() (oldest, newest time.Time) {
	return time.Time{}, time.Now().Add(cluster.MaxAhead)
}

func (c wallClock) Newest() (sure, never time.Time) {
	_, sure = c.OwnTimes()
	return sure, sure
}

// Appendable is Prometheus's way into the replicated log: both of its interfaces for scraping, rules and OTLP. A commit
// returns when the samples are on a majority of disks and applied, or with an error that says nothing about them; then
// the same samples may be sent again, which does no harm. Goroutine-safe; an appender belongs to one goroutine.
type Appendable struct {
	opts    AppendableOptions
	refused *prometheus.CounterVec
	clients bool
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
	if o.Clock == nil {
		o.Clock = wallClock{}
	}
	return &Appendable{opts: o, refused: promauto.With(o.Registerer).NewCounterVec(prometheus.CounterOpts{
		Name: "deucalion_appender_refused_samples_total",
		Help: "Samples of scrapes, rules and OTLP that were refused, by reason.",
	}, []string{"reason"})}
}

// ForClients is the same for samples that come with their timestamps, as by OTLP. When the clocks of the cluster disagree
// about one, the error of Append wraps cluster.ErrClockOff, and the whole request should be sent again.
func (a *Appendable) ForClients() *Appendable {
	b := *a
	b.clients = true
	return &b
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
	b := &base{to: a, ctx: ctx, batch: a.opts.FSM.NewBatch(), oldest: math.MinInt64}
	if a.clients {
		sure, never := a.opts.Clock.Newest()
		b.sure, b.never = sure.UnixMilli(), never.UnixMilli()
		return b
	}
	oldest, newest := a.opts.Clock.OwnTimes()
	if !oldest.IsZero() {
		b.oldest = oldest.UnixMilli()
	}
	b.sure = newest.UnixMilli()
	b.never = b.sure
	return b
}
