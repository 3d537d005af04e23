// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

const (
	headerIndex = "X-Deucalion-Index"
	headerNode  = "X-Deucalion-Node"

	headerSamples    = "X-Prometheus-Remote-Write-Samples-Written"
	headerHistograms = "X-Prometheus-Remote-Write-Histograms-Written"
	headerExemplars  = "X-Prometheus-Remote-Write-Exemplars-Written"

	protobufType = "application/x-protobuf"
)

// negotiate tells which message the body is, by Prometheus's rules: no Content-Type is version 1, no
// Content-Encoding is snappy, anything else that it does not know is 415.
func (h *Handler) negotiate(r *http.Request) (remoteapi.WriteMessageType, error) {
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != string(remoteapi.SnappyBlockCompression) {
		return "", fmt.Errorf("%v encoding (compression) is not accepted by this server; only %v is acceptable",
			enc, remoteapi.SnappyBlockCompression)
	}
	contentType := r.Header.Get("Content-Type")
	if contentType == "" {
		contentType = protobufType
	}
	msg, err := remoteapi.ParseProtoMsg(contentType)
	if err != nil {
		return "", err
	}
	if !h.cfg.Accept.Contains(msg) {
		return "", fmt.Errorf("%v protobuf message is not accepted by this server; only accepts %v", msg, h.cfg.Accept.String())
	}
	return msg, nil
}

// written sets the counts that version 2 asks for, with every answer: without them a sender cannot tell a receiver of
// version 2 that wrote nothing from one of version 1 that wrote all.
func written(w http.ResponseWriter, msg remoteapi.WriteMessageType, o fsm.Outcome) {
	if msg != remoteapi.WriteV2MessageType {
		return
	}
	w.Header().Set(headerSamples, strconv.Itoa(o.Floats))
	w.Header().Set(headerHistograms, strconv.Itoa(o.Histograms))
	w.Header().Set(headerExemplars, strconv.Itoa(o.Exemplars))
}

// fail answers a request of which nothing was committed because it could not be read.
func (h *Handler) fail(w http.ResponseWriter, msg remoteapi.WriteMessageType, err error) {
	code := http.StatusBadRequest
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, ErrBusy):
		h.unavailable(w, msg, err)
		return
	case errors.Is(err, ErrTooLarge), errors.Is(err, cluster.ErrTooLarge), errors.As(err, &tooLarge):
		code = http.StatusRequestEntityTooLarge
	}
	h.metrics.malformed.Inc()
	written(w, msg, fsm.Outcome{})
	http.Error(w, err.Error(), code)
}

// unavailable answers a request that is not known to be committed. The sender must retry it, which is harmless if it
// was committed after all: the same samples again have no effect.
func (h *Handler) unavailable(w http.ResponseWriter, msg remoteapi.WriteMessageType, err error) {
	if errors.Is(err, cluster.ErrTooLarge) { // would fail for ever
		h.fail(w, msg, err)
		return
	}
	h.metrics.unavailable.Inc()
	h.cfg.Logger.Debug("Remote write not committed", "err", err)
	written(w, msg, fsm.Outcome{})
	w.Header().Set("Retry-After", "1")
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}
