// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/deucaliondb/deucalion/cluster"
)

// importTimeout bounds an import: blocks of a terabyte take hours to arrive.
const importTimeout = 12 * time.Hour

// importBlocks adds the blocks in the body, a tar of block directories, at one log index. What is there already wins.
// When it returns, every live node answers with the new samples.
func (a *API) importBlocks(w http.ResponseWriter, r *http.Request) {
	// The read timeout of the server is meant for small requests.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	ctx, cancel := context.WithTimeout(r.Context(), importTimeout)
	defer cancel()
	report, err := a.cfg.Cluster.Import(ctx, r.Body)
	if report != nil && report.Index > 0 {
		w.Header().Set(headerIndex, strconv.FormatUint(report.Index, 10))
		if err != nil {
			err = fmt.Errorf("accepted by the cluster at index %d, but: %w", report.Index, err)
		}
	}
	switch {
	case err == nil:
		respond(w, report)
	case errors.Is(err, cluster.ErrImportRefused):
		respondError(w, http.StatusBadRequest, errBadData, err)
	case report != nil && report.Index > 0:
		respondError(w, http.StatusInternalServerError, errInternal, err)
	case errors.Is(err, cluster.ErrLevel): // only an upgrade helps, so there is no Retry-After
		respondError(w, http.StatusServiceUnavailable, errUnavailable, err)
	default:
		w.Header().Set("Retry-After", "10")
		respondError(w, http.StatusServiceUnavailable, errUnavailable, err)
	}
}
