// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/deucaliondb/deucalion/cluster"
)

// gate holds requests off until the node has caught up once, and again while it stops. In between it stays open even
// when the node is not ready, say for want of a leader: a read at level local is then still of use, and one at another
// level, like a write, gets its own 503 that says why.
type gate struct {
	cluster interface{ Ready() error }
	opened  atomic.Bool
}

// check returns nil if requests may pass.
func (g *gate) check() error {
	err := g.cluster.Ready()
	switch {
	case err == nil, errors.Is(err, cluster.ErrDiskFull), errors.Is(err, cluster.ErrClockOff): // it has caught up, and takes deletes
		g.opened.Store(true)
		return nil
	case errors.Is(err, cluster.ErrStopped) || !g.opened.Load():
		return err
	}
	return nil
}

// wrap answers 503 as Prometheus does while it is not ready. A read that names the level local passes even before
// the node has caught up: it asks for what there is.
func (g *gate) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.check(); err != nil && (errors.Is(err, cluster.ErrStopped) || !asksForLocal(r)) {
			notReady(w, err, "Service Unavailable")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g *gate) wrapFunc(next http.HandlerFunc) http.HandlerFunc { return g.wrap(next).ServeHTTP }

func notReady(w http.ResponseWriter, err error, text string) {
	w.Header().Set("X-Prometheus-Stopping", fmt.Sprint(errors.Is(err, cluster.ErrStopped)))
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprint(w, text)
}

// ready is /-/ready: unlike the gate it follows every change, for load balancers that choose between nodes.
func (a *API) ready(w http.ResponseWriter, r *http.Request) {
	if err := a.cfg.Cluster.Ready(); err != nil {
		notReady(w, err, fmt.Sprintf("%s is %v.\n", appName, err))
		return
	}
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		fmt.Fprintf(w, "%s is Ready.\n", appName)
	}
}
