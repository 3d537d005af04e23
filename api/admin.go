// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/util/httputil"

	"github.com/deucaliondb/deucalion/fsm"
)

// How long an admin call may take. A cleanup rewrites blocks and a snapshot flushes memory, on every node.
const (
	proposeTimeout  = 10 * time.Second
	deleteTimeout   = 30 * time.Second
	cleanTimeout    = 30 * time.Minute
	snapshotTimeout = 10 * time.Minute
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
		entry := fsm.EncodeDelete(fsm.Delete{ID: requestID(), Selectors: selectors, Mint: mint, Maxt: maxt})
		if !a.onAllNodes(w, r, entry, "", deleteTimeout) {
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// cleanTombstones rewrites the blocks that have deleted samples in them, on every node.
func (a *API) cleanTombstones(w http.ResponseWriter, r *http.Request) {
	id := requestID()
	if a.onAllNodes(w, r, fsm.EncodeClean(id), id, cleanTimeout) {
		w.WriteHeader(http.StatusNoContent)
	}
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
	snapshot := fsm.UserSnapshot{
		ID:   requestID(),
		Name: time.Now().UTC().Format("20060102T150405Z0700") + "-" + requestID(),
	}
	if !a.onAllNodes(w, r, fsm.EncodeUserSnapshot(snapshot), snapshot.ID, snapshotTimeout) {
		return
	}
	respond(w, struct {
		Name string `json:"name"`
	}{snapshot.Name})
}

// onAllNodes commits an entry and waits until the live nodes have applied it and done its task. On failure it
// answers, and returns false.
func (a *API) onAllNodes(w http.ResponseWriter, r *http.Request, entry []byte, task string, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(r.Context(), proposeTimeout)
	defer cancel()
	result, err := a.cfg.Cluster.Propose(ctx, entry)
	if err != nil {
		w.Header().Set("Retry-After", "1")
		respondError(w, http.StatusServiceUnavailable, errUnavailable, err)
		return false
	}
	w.Header().Set(headerIndex, strconv.FormatUint(result.Index, 10))
	if result.Err != "" {
		respondError(w, http.StatusInternalServerError, errInternal, errors.New(result.Err))
		return false
	}
	ctx, cancelWait := context.WithTimeout(r.Context(), timeout)
	defer cancelWait()
	if err := a.cfg.Cluster.AwaitAll(ctx, result.Index, task); err != nil {
		code, typ := http.StatusInternalServerError, errInternal
		if errors.Is(err, context.DeadlineExceeded) {
			code, typ = http.StatusGatewayTimeout, errTimeout
		}
		respondError(w, code, typ, fmt.Errorf("accepted by the cluster at index %d, but: %w", result.Index, err))
		return false
	}
	return true
}

// requestID is 16 random hex digits.
func requestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b[:])
}
