// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

// Batch is what one request is collected in; *fsm.Batch is one.
type Batch interface {
	sink
	Commit(ctx context.Context, p fsm.Proposer) (fsm.Outcome, error)
	Release()
}

// Config is what a Handler needs. NewBatch and Proposer must be given; zero values of the rest mean the defaults.
type Config struct {
	// NewBatch gives the batch of one request; the handler releases it.
	NewBatch func() Batch
	// Proposer commits batches.
	Proposer fsm.Proposer
	// NodeID is told in each answer.
	NodeID string
	// Accept lists the protobuf messages that are taken; others get 415. Default: both versions.
	Accept remoteapi.MessageTypes
	// MaxBodyBytes bounds a request, compressed and decoded. Default 32 MiB, as Prometheus. Too low, and senders
	// with large shards get 413, which they do not retry; too high, and one request can take that much memory.
	MaxBodyBytes int
	// MaxInFlightBytes bounds the memory of all requests that are being read, decoded or committed; what comes on top
	// gets 503, and 413 if one request takes more than that alone. Default 16 times MaxBodyBytes.
	MaxInFlightBytes int64
	// MaxLabelBytes bounds names and values of one series together, as they stand on the wire. Default 1 MiB.
	MaxLabelBytes int
	// TypeAndUnitLabels gives series of version 2 the labels __type__ and __unit__ by their metadata.
	TypeAndUnitLabels bool
	// CommitTimeout bounds how long a request waits to be committed. Default 10 s.
	CommitTimeout time.Duration
	// Newest bounds the timestamps of samples: those after never are refused for good; one between sure and never, about
	// which the clocks of the cluster disagree, makes the request be answered with 503. Default: 10 min from now, both.
	Newest     func() (sure, never time.Time)
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Handler is the http.Handler of /api/v1/write.
type Handler struct {
	cfg      Config
	metrics  *metrics
	inFlight atomic.Int64 // bytes
	requests sync.Pool    // of *request
}

// New returns a Handler. It registers its metrics with cfg.Registerer.
func New(cfg Config) *Handler {
	if cfg.Accept == nil {
		cfg.Accept = remoteapi.MessageTypes{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType}
	}
	if cfg.MaxBodyBytes <= 0 {
		cfg.MaxBodyBytes = 32 << 20
	}
	if cfg.MaxInFlightBytes <= 0 {
		cfg.MaxInFlightBytes = 16 * int64(cfg.MaxBodyBytes)
	}
	if cfg.MaxLabelBytes <= 0 {
		cfg.MaxLabelBytes = 1 << 20
	}
	if cfg.CommitTimeout <= 0 {
		cfg.CommitTimeout = 10 * time.Second
	}
	if cfg.Newest == nil {
		cfg.Newest = func() (sure, never time.Time) {
			sure = time.Now().Add(cluster.MaxAhead)
			return sure, sure
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Handler{cfg: cfg, metrics: newMetrics(cfg.Registerer)}
	h.requests.New = func() any {
		req := &request{decoder: decoder{typeAndUnit: cfg.TypeAndUnitLabels}}
		req.decoder.take = func(n int) error { return h.take(req, n) }
		return req
	}
	return h
}

// ServeHTTP answers 204 if all of the request is committed, 400 if a part of it was refused and the rest committed
// (or if it does not decode, and nothing was), and 503 if it is not known to be committed, or if
// the clocks disagree about it and nothing was, so that the sender retries.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(headerNode, h.cfg.NodeID)
	msg, err := h.negotiate(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnsupportedMediaType)
		return
	}
	req := h.requests.Get().(*request)
	defer func() {
		h.inFlight.Add(-req.reset())
		h.requests.Put(req)
	}()
	body, err := h.read(req, r)
	if err != nil {
		h.fail(w, msg, err)
		return
	}
	h.store(w, r, req, msg, body)
}

// store decodes and commits a body, and answers.
func (h *Handler) store(w http.ResponseWriter, r *http.Request, req *request, msg remoteapi.WriteMessageType, body []byte) {
	batch := h.cfg.NewBatch()
	defer batch.Release()
	d := &req.decoder
	sure, never := h.cfg.Newest()
	d.reset(batch, sure.UnixMilli(), never.UnixMilli(), h.cfg.MaxLabelBytes)
	decode := d.v1
	if msg == remoteapi.WriteV2MessageType {
		decode = d.v2
	}
	if err := decode(body); err != nil {
		h.fail(w, msg, err)
		return
	}
	if d.disputed {
		h.unavailable(w, msg, errDisputed)
		return
	}
	h.metrics.invalidLabels.Add(float64(d.refused.counts[reasonLabels]))
	ctx, cancel := context.WithTimeout(r.Context(), h.cfg.CommitTimeout)
	defer cancel()
	outcome, err := batch.Commit(ctx, h.cfg.Proposer)
	if err != nil {
		h.unavailable(w, msg, err)
		return
	}
	d.refused.addOutcome(outcome)
	h.answer(w, msg, outcome, &d.refused)
}

// answer tells what became of a committed request.
func (h *Handler) answer(w http.ResponseWriter, msg remoteapi.WriteMessageType, o fsm.Outcome, refused *refusals) {
	h.metrics.observe(o, refused)
	written(w, msg, o)
	if o.Index > 0 {
		w.Header().Set(headerIndex, strconv.FormatUint(o.Index, 10))
	}
	if !refused.any() {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	text := refused.message(o.Floats + o.Histograms)
	h.cfg.Logger.Debug("Remote write: samples refused", "reasons", text)
	http.Error(w, text, http.StatusBadRequest)
}
