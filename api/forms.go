// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
)

const (
	maxMultipart  = 32 << 20 // bytes of a form with all its files
	maxFormMemory = 1 << 20  // bytes of files that are not put on the disk; nobody looks at them
)

// multipartForms reads such forms before any handler does, and removes their files: net/http does that only for the
// request that it has made itself, and handlers see copies of it.
func (a *API) multipartForms(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || typ != "multipart/form-data" {
			next.ServeHTTP(w, r)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxMultipart)
		defer a.removeFiles(r)
		if err := r.ParseMultipartForm(maxFormMemory); err != nil {
			code := http.StatusBadRequest
			var tooLarge *http.MaxBytesError
			if errors.As(err, &tooLarge) {
				code = http.StatusRequestEntityTooLarge
			}
			respondError(w, code, errBadData, fmt.Errorf("error parsing form values: %w", err))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *API) removeFiles(r *http.Request) {
	if r.MultipartForm == nil {
		return
	}
	if err := r.MultipartForm.RemoveAll(); err != nil {
		a.logger.Warn("Removing the files of a form", "err", err)
	}
}
