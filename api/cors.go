// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import "net/http"

// exposeHeaders adds our headers to those that a browser may send and see. Prometheus's handlers overwrite these lists
// when they run, hence the change at the last moment.
func exposeHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&corsWriter{ResponseWriter: w}, r)
	})
}

type corsWriter struct {
	http.ResponseWriter
	wrote bool
}

func (w *corsWriter) WriteHeader(code int) {
	if !w.wrote {
		w.wrote = true
		extend(w.Header(), "Access-Control-Expose-Headers", headerIndex+", "+headerNode)
		extend(w.Header(), "Access-Control-Allow-Headers", headerConsistency+", "+headerMinIndex)
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *corsWriter) Write(b []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// Flush is needed by streamed remote read and by live notifications.
func (w *corsWriter) Flush() {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap lets http.ResponseController through.
func (w *corsWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// extend adds to a header that is set; without Origin in the request Prometheus sets none.
func extend(h http.Header, name, more string) {
	if v := h.Get(name); v != "" {
		h.Set(name, v+", "+more)
	}
}

// answerOptions answers OPTIONS outside of /api/v1 as Prometheus's router does: 200 with the methods that there are,
// where http.ServeMux has a 405.
func answerOptions(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			w = &optionsWriter{ResponseWriter: w}
		}
		next.ServeHTTP(w, r)
	})
}

type optionsWriter struct {
	http.ResponseWriter
	allowed bool // and so there is no body
}

func (w *optionsWriter) WriteHeader(code int) {
	if code == http.StatusMethodNotAllowed {
		w.allowed, code = true, http.StatusOK
		w.Header().Del("Content-Type")
		w.Header().Add("Allow", http.MethodOptions)
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *optionsWriter) Write(b []byte) (int, error) {
	if w.allowed {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}
