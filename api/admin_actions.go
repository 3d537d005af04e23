// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/deucaliondb/deucalion/fsm"
)

// How long an admin call may take. A cleanup rewrites blocks and a snapshot flushes memory, on every node.
const (
	proposeTimeout  = 10 * time.Second
	deleteTimeout   = 30 * time.Second
	cleanTimeout    = 30 * time.Minute
	snapshotTimeout = 10 * time.Minute
)

// adminFailure is why an admin call failed, in the terms of each of its transports.
type adminFailure struct {
	code int    // of HTTP
	typ  string // of Prometheus's API
	grpc codes.Code
	err  error
}

// respond answers over HTTP. index is that of the entry, 0 if none was committed.
func (f *adminFailure) respond(w http.ResponseWriter, index uint64) {
	setIndex(w, index)
	if f.code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	respondError(w, f.code, f.typ, f.err)
}

func (f *adminFailure) status() error { return status.Error(f.grpc, f.err.Error()) }

func (a *API) deleteSelected(ctx context.Context, selectors [][]*labels.Matcher, mint, maxt int64) (uint64, *adminFailure) {
	entry := fsm.EncodeDelete(fsm.Delete{ID: requestID(), Selectors: selectors, Mint: mint, Maxt: maxt})
	return a.onAllNodes(ctx, entry, "", deleteTimeout)
}

func (a *API) clean(ctx context.Context) (uint64, *adminFailure) {
	id := requestID()
	return a.onAllNodes(ctx, fsm.EncodeClean(id), id, cleanTimeout)
}

func (a *API) makeSnapshot(ctx context.Context) (name string, index uint64, fail *adminFailure) {
	s := fsm.UserSnapshot{
		ID:   requestID(),
		Name: time.Now().UTC().Format("20060102T150405Z0700") + "-" + requestID(),
	}
	index, fail = a.onAllNodes(ctx, fsm.EncodeUserSnapshot(s), s.ID, snapshotTimeout)
	return s.Name, index, fail
}

// onAllNodes commits an entry, waits until the live nodes have applied it and done its task, and returns the index of
// the entry, also with a failure after its commit.
func (a *API) onAllNodes(parent context.Context, entry []byte, task string, timeout time.Duration) (uint64, *adminFailure) {
	ctx, cancel := context.WithTimeout(parent, proposeTimeout)
	defer cancel()
	result, err := a.cfg.Cluster.Propose(ctx, entry)
	if err != nil {
		return 0, &adminFailure{http.StatusServiceUnavailable, errUnavailable, codes.Unavailable, err}
	}
	if result.Err != "" {
		return result.Index, &adminFailure{http.StatusInternalServerError, errInternal, codes.Internal, errors.New(result.Err)}
	}
	ctx, cancelWait := context.WithTimeout(parent, timeout)
	defer cancelWait()
	if err := a.cfg.Cluster.AwaitAll(ctx, result.Index, task); err != nil {
		fail := &adminFailure{http.StatusInternalServerError, errInternal, codes.Internal, nil}
		if errors.Is(err, context.DeadlineExceeded) {
			fail = &adminFailure{http.StatusGatewayTimeout, errTimeout, codes.DeadlineExceeded, nil}
		}
		fail.err = fmt.Errorf("accepted by the cluster at index %d, but: %w", result.Index, err)
		return result.Index, fail
	}
	return result.Index, nil
}

// requestID is 16 random hex digits.
func requestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b[:])
}
