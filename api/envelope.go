// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"net/http"
)

// Error types of Prometheus's API.
const (
	errBadData     = "bad_data"
	errInternal    = "internal"
	errUnavailable = "unavailable"
	errTimeout     = "timeout"
	errNotFound    = "not_found"

	errConflict = "conflict" // ours: refused as things are
)

// envelope is what every answer of /api/v1 is wrapped in.
type envelope struct {
	Status    string   `json:"status"`
	Data      any      `json:"data,omitempty"`
	ErrorType string   `json:"errorType,omitempty"`
	Error     string   `json:"error,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
}

func respond(w http.ResponseWriter, data any) {
	writeJSON(w, http.StatusOK, envelope{Status: "success", Data: data})
}

func respondError(w http.ResponseWriter, code int, typ string, err error) {
	writeJSON(w, code, envelope{Status: "error", ErrorType: typ, Error: err.Error()})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b) // the client is gone if this fails
}
