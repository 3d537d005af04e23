// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/deucaliondb/deucalion/cluster"
)

const (
	// importTimeout bounds an import: blocks of a terabyte take hours to arrive.
	importTimeout = 12 * time.Hour
	// importSilence bounds the wait for more of it: a client that sends nothing keeps others from importing.
	importSilence = 5 * time.Minute
)

// importBlocks adds the blocks in the body, a tar of block directories, at one log index. What is there already wins.
// When it returns, every live node answers with the new samples.
func (a *API) importBlocks(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), importTimeout)
	defer cancel()
	report, err := a.cfg.Cluster.Import(ctx, &steadyBody{ctx, http.NewResponseController(w), r.Body})
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

// steadyBody is a body of which some must come every importSilence until ctx ends. The read timeout of the server, which
// is meant for small requests, does not apply.
type steadyBody struct {
	ctx  context.Context
	conn *http.ResponseController
	body io.Reader
}

func (b *steadyBody) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	_ = b.conn.SetReadDeadline(time.Now().Add(importSilence))
	n, err := b.body.Read(p)
	_ = b.conn.SetReadDeadline(time.Time{}) // what has come may take its time
	return n, err
}
