// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/util/httputil"
)

// admin wraps a handler that changes the storage: it exists only if the operator asked for it.
func (a *API) admin(next http.HandlerFunc) http.Handler {
	return a.gate.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httputil.SetCORS(w, a.cfg.CORSOrigin, r)
		w.Header().Set(headerNode, a.cfg.Cluster.ID())
		if !a.cfg.EnableAdmin {
			respondError(w, http.StatusInternalServerError, errUnavailable, errors.New("admin APIs disabled"))
			return
		}
		if r.Method == http.MethodDelete {
			// net/http reads form bodies of POST, PUT and PATCH only.
			r = r.Clone(r.Context())
			r.Method = http.MethodPost
		}
		if err := r.ParseForm(); err != nil {
			respondError(w, http.StatusBadRequest, errBadData, fmt.Errorf("error parsing form values: %w", err))
			return
		}
		// The read timeout of the server would end a long wait; the request has been read.
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		next(w, r)
	}))
}

// deleteSeries deletes what all the match[] select, in one entry: all of it or nothing. When it returns, no node
// answers with the deleted samples any more.
func (a *API) deleteSeries(w http.ResponseWriter, r *http.Request) {
	selectors, mint, maxt, err := a.parseDelete(r)
	if err != nil {
		respondError(w, http.StatusBadRequest, errBadData, err)
		return
	}
	if mint <= maxt {
		index, fail := a.deleteSelected(r.Context(), selectors, mint, maxt)
		if fail != nil {
			fail.respond(w, index)
			return
		}
		setIndex(w, index)
	}
	w.WriteHeader(http.StatusNoContent)
}

// cleanTombstones rewrites the blocks that have deleted samples in them, on every node.
func (a *API) cleanTombstones(w http.ResponseWriter, r *http.Request) {
	index, fail := a.clean(r.Context())
	if fail != nil {
		fail.respond(w, index)
		return
	}
	setIndex(w, index)
	w.WriteHeader(http.StatusNoContent)
}

// snapshot makes a snapshot of the same name and content on every node. skip_head is checked and has no effect: what is
// in memory and what in blocks differs between nodes, and must not show.
func (a *API) snapshot(w http.ResponseWriter, r *http.Request) {
	if s := r.FormValue("skip_head"); s != "" {
		if _, err := strconv.ParseBool(s); err != nil {
			respondError(w, http.StatusBadRequest, errBadData, fmt.Errorf("invalid parameter %q: unable to parse boolean: %w", "skip_head", err))
			return
		}
	}
	name, index, warnings, fail := a.makeSnapshot(r.Context())
	if fail != nil {
		fail.respond(w, index)
		return
	}
	setIndex(w, index)
	data := struct {
		Name string `json:"name"`
	}{name}
	writeJSON(w, http.StatusOK, envelope{Status: "success", Data: data, Warnings: warnings})
}

func setIndex(w http.ResponseWriter, index uint64) {
	if index != 0 {
		w.Header().Set(headerIndex, strconv.FormatUint(index, 10))
	}
}
