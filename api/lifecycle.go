// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net/http"
	"sync/atomic"
)

// lifecycleRoutes adds /-/reload and /-/quit, which answer 403 unless they are enabled.
func (a *API) lifecycleRoutes(mux *http.ServeMux, prefix string) {
	for name, h := range map[string]http.HandlerFunc{"/-/reload": a.reload, "/-/quit": a.quit()} {
		if !a.cfg.EnableLifecycle {
			h = func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprint(w, "Lifecycle API is not enabled.")
			}
		}
		h = a.metrics.instrument(name, h)
		mux.Handle("POST "+prefix+name, h)
		mux.Handle("PUT "+prefix+name, h)
		mux.Handle("GET "+prefix+name, a.metrics.instrument(name, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusMethodNotAllowed)
			fmt.Fprint(w, "Only POST or PUT requests allowed")
		}))
	}
}

// reload reads the configuration of this node again.
func (a *API) reload(w http.ResponseWriter, _ *http.Request) {
	if err := a.cfg.Reload(); err != nil {
		http.Error(w, fmt.Sprintf("failed to reload config: %s", err), http.StatusInternalServerError)
	}
}

// quit ends this node, once.
func (a *API) quit() http.HandlerFunc {
	var asked atomic.Bool
	return func(w http.ResponseWriter, _ *http.Request) {
		if asked.Swap(true) {
			fmt.Fprint(w, "Termination already in progress.")
			return
		}
		fmt.Fprint(w, "Requesting termination... Goodbye!")
		a.cfg.Quit()
	}
}
