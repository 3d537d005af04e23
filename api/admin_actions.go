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
	index, _, fail := a.onAllNodes(ctx, entry, "", deleteTimeout)
	return index, fail
}

func (a *API) clean(ctx context.Context) (uint64, *adminFailure) {
	id := requestID()
	index, _, fail := a.onAllNodes(ctx, fsm.EncodeClean(id), id, cleanTimeout)
	return index, fail
}

// makeSnapshot returns the name and the index of the snapshot, and for each node that is away a warning.
func (a *API) makeSnapshot(ctx context.Context) (name string, index uint64, warnings []string, fail *adminFailure) {
	s := fsm.UserSnapshot{
		ID:   requestID(),
		Name: time.Now().UTC().Format("20060102T150405Z0700") + "-" + requestID(),
	}
	index, away, fail := a.onAllNodes(ctx, fsm.EncodeUserSnapshot(s), s.ID, snapshotTimeout)
	for _, id := range away {
		warnings = append(warnings, fmt.Sprintf("node %s is away and may never have this snapshot", id))
	}
	return s.Name, index, warnings, fail
}

// onAllNodes commits an entry, waits until the live nodes have applied it and done its task, and returns the index of
// the entry, also with a failure after its commit, and the nodes that are away.
func (a *API) onAllNodes(parent context.Context, entry []byte, task string, timeout time.Duration) (index uint64, away []string, fail *adminFailure) {
	ctx, cancel := context.WithTimeout(parent, proposeTimeout)
	defer cancel()
	result, err := a.cfg.Cluster.Propose(ctx, entry)
	if err != nil {
		return 0, nil, &adminFailure{http.StatusServiceUnavailable, errUnavailable, codes.Unavailable, err}
	}
	if result.Err != "" {
		return result.Index, nil, &adminFailure{http.StatusInternalServerError, errInternal, codes.Internal, errors.New(result.Err)}
	}
	ctx, cancelWait := context.WithTimeout(parent, timeout)
	defer cancelWait()
	away, err = a.cfg.Cluster.AwaitAll(ctx, result.Index, task)
	if err != nil {
		fail := &adminFailure{http.StatusInternalServerError, errInternal, codes.Internal, nil}
		if errors.Is(err, context.DeadlineExceeded) {
			fail = &adminFailure{http.StatusGatewayTimeout, errTimeout, codes.DeadlineExceeded, nil}
		}
		fail.err = fmt.Errorf("accepted by the cluster at index %d, but: %w", result.Index, err)
		return result.Index, away, fail
	}
	return result.Index, away, nil
}

// requestID is 16 random hex digits.
func requestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b[:])
}
