// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/timestamp"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

// digestTimeout bounds the comparison of all data of all nodes.
const digestTimeout = 30 * time.Minute

// digest compares the data of all nodes at one log index, from start to end (all of it without), and answers what each
// node found. That nodes differ is an answer and not an error.
func (a *API) digest(w http.ResponseWriter, r *http.Request) {
	start, err := timeParam(r, "start", v1.MinTime)
	if err != nil {
		respondError(w, http.StatusBadRequest, errBadData, err)
		return
	}
	end, err := timeParam(r, "end", v1.MaxTime)
	if err != nil {
		respondError(w, http.StatusBadRequest, errBadData, err)
		return
	}
	if end.Before(start) {
		respondError(w, http.StatusBadRequest, errBadData, errors.New("end timestamp must not be before start time"))
		return
	}
	// The read timeout of the server would end a long wait; the request has been read.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	ctx, cancel := context.WithTimeout(r.Context(), digestTimeout)
	defer cancel()
	report, err := a.cfg.Cluster.Digest(ctx, []fsm.TimeRange{{Mint: timestamp.FromTime(start), Maxt: timestamp.FromTime(end)}})
	switch {
	case errors.Is(err, cluster.ErrLevel): // only an upgrade helps, so there is no Retry-After
		respondError(w, http.StatusServiceUnavailable, errUnavailable, err)
	case err != nil:
		w.Header().Set("Retry-After", "1")
		respondError(w, http.StatusServiceUnavailable, errUnavailable, err)
	default:
		w.Header().Set(headerIndex, strconv.FormatUint(report.Index, 10))
		respond(w, report)
	}
}
