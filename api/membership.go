// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/deucaliondb/deucalion/cluster"
)

// membershipTimeout bounds what an operator asks of the leader, elections in between included.
const membershipTimeout = 10 * time.Second

// transferLeader moves the leadership to the node id, or without one to the best, and answers who leads.
func (a *API) transferLeader(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("id")
	a.logger.Info("Asked to move the leadership", "id", id, "client", r.RemoteAddr)
	ctx, cancel := context.WithTimeout(r.Context(), membershipTimeout)
	defer cancel()
	if err := a.cfg.Cluster.TransferLeadership(ctx, id); err != nil {
		respondMembershipError(w, err)
		return
	}
	leader, _ := a.cfg.Cluster.Leader()
	respond(w, struct {
		Leader string `json:"leader"`
	}{leader})
}

// removePeer takes the dead node id out of the cluster, and answers the log index from which on it is no member.
func (a *API) removePeer(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("id")
	if id == "" {
		respondError(w, http.StatusBadRequest, errBadData, errors.New("no id parameter provided"))
		return
	}
	a.logger.Info("Asked to remove a node", "id", id, "client", r.RemoteAddr)
	ctx, cancel := context.WithTimeout(r.Context(), membershipTimeout)
	defer cancel()
	index, err := a.cfg.Cluster.RemovePeer(ctx, id)
	if err != nil {
		respondMembershipError(w, err)
		return
	}
	setIndex(w, index)
	respond(w, struct {
		Index uint64 `json:"index"`
	}{index})
}

func respondMembershipError(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, cluster.ErrUnknownNode):
		respondError(w, http.StatusNotFound, errNotFound, err)
	case errors.Is(err, cluster.ErrRefused):
		respondError(w, http.StatusConflict, errConflict, err)
	default:
		w.Header().Set("Retry-After", "1")
		respondError(w, http.StatusServiceUnavailable, errUnavailable, err)
	}
}
