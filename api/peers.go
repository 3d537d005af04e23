// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/route"
)

const (
	// peerWait bounds how long an answer waits for the part of another node.
	peerWait = 5 * time.Second
	// peerBytes bounds the part of one node.
	peerBytes = 256 << 20
)

// peerHandler serves the requests of other nodes for the part of an answer that this node has: the paths are those of
// the API, the answers speak of this node alone.
func (a *API) peerHandler() http.Handler {
	stock := route.New()
	a.prometheus.Register(stock)
	mux := http.NewServeMux()
	mux.Handle("GET /api/v1/", http.StripPrefix("/api/v1", stock))
	rules := a.peerRules()
	for _, path := range ruleRoutes {
		mux.Handle("GET /api/v1"+path, rules)
	}
	return mux
}

// part is what one node knows of something that the nodes share.
type part struct {
	node string
	data json.RawMessage
}

// partError is how a node refused its part.
type partError struct {
	node, typ, text string
	code            int
}

func (e *partError) Error() string { return fmt.Sprintf("node %s: %s", e.node, e.text) }

// gather asks all live nodes at once for their part of what r asks for, path being that of r below /api/v1. This node's
// part comes first. Of each node whose part is missing a warning says so. Without any part it answers with the
// reason, and returns false.
func (a *API) gather(w http.ResponseWriter, r *http.Request, path string) (parts []part, warnings []string, ok bool) {
	ctx, cancel := context.WithTimeout(r.Context(), peerWait)
	defer cancel()
	var (
		mu   sync.Mutex // protects parts and errs
		errs []error
		all  sync.WaitGroup
	)
	for _, id := range a.members() {
		all.Go(func() {
			p, err := a.askPart(ctx, id, path, r.URL.RawQuery)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			} else {
				parts = append(parts, p)
			}
		})
	}
	all.Wait()
	if len(parts) == 0 {
		respondPartError(w, errs)
		return nil, nil, false
	}
	for _, err := range errs {
		warnings = append(warnings, err.Error())
	}
	slices.Sort(warnings)
	slices.SortFunc(parts, func(x, y part) int {
		if x.node == a.cfg.Cluster.ID() {
			return -1
		}
		if y.node == a.cfg.Cluster.ID() {
			return 1
		}
		return cmp.Compare(x.node, y.node)
	})
	return parts, warnings, true
}

// members are the ids of the live nodes, this one always among them.
func (a *API) members() []string {
	ids := []string{a.cfg.Cluster.ID()}
	for _, m := range a.cfg.Cluster.Members() {
		if m.ID != ids[0] {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// askPart asks one node, which may be this one, for its part.
func (a *API) askPart(ctx context.Context, id, path, query string) (part, error) {
	resp, err := a.cfg.Cluster.AskPeer(ctx, id, http.MethodGet, "/api/v1"+path+"?"+query, nil, nil)
	if err != nil {
		return part{}, &partError{node: id, typ: errUnavailable, text: err.Error(), code: http.StatusServiceUnavailable}
	}
	defer resp.Body.Close()
	var answer struct {
		Data      json.RawMessage `json:"data"`
		ErrorType string          `json:"errorType"`
		Error     string          `json:"error"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, peerBytes)).Decode(&answer)
	switch {
	case resp.StatusCode == http.StatusOK && err == nil:
		return part{id, answer.Data}, nil
	case resp.StatusCode == http.StatusOK:
		return part{}, &partError{id, errInternal, err.Error(), http.StatusBadGateway}
	case err != nil || answer.Error == "": // not from the API: it is not ready, say
		return part{}, &partError{id, errUnavailable, resp.Status, http.StatusServiceUnavailable}
	}
	return part{}, &partError{id, answer.ErrorType, answer.Error, resp.StatusCode}
}

// respondPartError answers with the first reason; a request that is wrong is refused by all nodes alike.
func respondPartError(w http.ResponseWriter, errs []error) {
	var refused *partError
	for _, err := range errs {
		if errors.As(err, &refused) && refused.code < http.StatusInternalServerError {
			respondError(w, refused.code, refused.typ, errors.New(refused.text))
			return
		}
	}
	respondError(w, http.StatusServiceUnavailable, errUnavailable, errors.Join(errs...))
}
