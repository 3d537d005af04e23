// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/util/httputil"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// Ruler evaluates rules and notifies Alertmanagers on one node at a time.
type Ruler interface {
	v1.RulesRetriever
	v1.AlertmanagerRetriever
	// Evaluates is nil when this is the node, confirmed by a majority after the call.
	Evaluates(ctx context.Context) error
}

// ruleTimeout bounds the wait for the node that evaluates rules.
const ruleTimeout = 10 * time.Second

// ruleRoutes are answered by the node that evaluates rules.
var ruleRoutes = []string{"/rules", "/alerts", "/alertmanagers"}

// forwardHeaders are those of a request that have a meaning for the node it is forwarded to.
var forwardHeaders = []string{"Accept", "Accept-Encoding", "Origin"}

func (a *API) ruler() Ruler {
	if a.cfg.Ruler == nil {
		return nothing{}
	}
	return a.cfg.Ruler
}

// byRuler wraps a handler of ruleRoutes: it answers on the node that evaluates, and others ask that one.
func (a *API) byRuler(next http.HandlerFunc) http.HandlerFunc {
	if a.cfg.Ruler == nil {
		return next
	}
	return a.gate.wrapFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		late := time.AfterFunc(ruleTimeout, func() { cancel(context.DeadlineExceeded) })
		defer late.Stop()
		if a.cfg.Ruler.Evaluates(ctx) == nil {
			w.Header().Set(headerNode, a.cfg.Cluster.ID())
			next(w, r)
			return
		}
		if err := a.forwardToLeader(ctx, late, w, r); err != nil {
			httputil.SetCORS(w, a.cfg.CORSOrigin, r)
			w.Header().Set("Retry-After", "1")
			respondError(w, http.StatusServiceUnavailable, errUnavailable, err)
		}
	})
}

// forwardToLeader passes r on, with its query, and the answer back. late ends ctx unless the answer begins before; how
// long it then takes is the client's affair. After an error nothing has been written.
func (a *API) forwardToLeader(ctx context.Context, late *time.Timer, w http.ResponseWriter, r *http.Request) error {
	leader, ok := a.cfg.Cluster.Leader()
	if !ok {
		return errors.New("no leader: no rule is evaluated")
	}
	if leader == a.cfg.Cluster.ID() {
		return errors.New("leader has not taken the rules over yet")
	}
	header := http.Header{}
	for _, name := range forwardHeaders {
		if v := r.Header.Values(name); len(v) > 0 {
			header[name] = v
		}
	}
	resp, err := a.cfg.Cluster.AskPeer(ctx, leader, http.MethodGet, "/api/v1"+rulePath(r)+"?"+r.URL.RawQuery, header, nil)
	if err != nil {
		return fmt.Errorf("ask leader %s: %w", leader, err)
	}
	defer resp.Body.Close()
	late.Stop()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, resp.Body); err != nil {
		panic(http.ErrAbortHandler) // the client must not take a part of the answer for all of it
	}
	return nil
}

// rulePath is the route of r below /api/v1, whatever prefix it came with.
func rulePath(r *http.Request) string {
	return r.URL.Path[strings.LastIndex(r.URL.Path, "/"):]
}

// peerRules answers what other nodes forward to this one: GET /api/v1/rules, /alerts and /alertmanagers. It never
// forwards.
func (a *API) peerRules() http.Handler {
	local := route.New()
	a.prometheus.Register(local)
	return http.StripPrefix("/api/v1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(ruleRoutes, r.URL.Path) {
			http.NotFound(w, r)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), ruleTimeout)
		defer cancel()
		w.Header().Set(headerNode, a.cfg.Cluster.ID())
		if err := a.ruler().Evaluates(ctx); err != nil {
			w.Header().Set("Retry-After", "1")
			respondError(w, http.StatusServiceUnavailable, errUnavailable, err)
			return
		}
		local.ServeHTTP(w, r)
	}))
}
