// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/deucaliondb/deucalion/internal/plant"
)

// Level says how fresh the state must be that a read is answered from.
type Level string

const (
	// Local is this node's state, whatever its age.
	Local Level = "local"
	// Bounded is this node's state if it is at most Config.MaxStaleness behind the leader's.
	Bounded Level = "bounded"
	// Linearizable includes every write that was acknowledged before the read began, on any node.
	Linearizable Level = "linearizable"
)

// ParseLevel turns the text of a flag, parameter or header into a Level.
func ParseLevel(s string) (Level, error) {
	switch l := Level(s); l {
	case Local, Bounded, Linearizable:
		return l, nil
	}
	return "", fmt.Errorf("unknown consistency level %q, want %s, %s or %s", s, Local, Bounded, Linearizable)
}

const (
	headerConsistency = "X-Deucalion-Consistency"
	headerMinIndex    = "X-Deucalion-Min-Index"
	headerIndex       = "X-Deucalion-Index"
	headerNode        = "X-Deucalion-Node"
	paramConsistency  = "consistency"

	maxBarrierWait = 10 * time.Second
)

// appliedState is what a barrier waits for; *fsm.FSM has it.
type appliedState interface {
	Applied() (index, term uint64)
	Wait(ctx context.Context, index uint64) error
}

// barrier lets a read pass when this node's state is as fresh as the read asks for.
type barrier struct {
	cluster      Cluster
	state        appliedState
	level        Level // of reads that name none
	maxStaleness time.Duration
	timeout      time.Duration
}

func (a *API) newBarrier() *barrier {
	timeout := maxBarrierWait
	if a.cfg.QueryTimeout > 0 {
		timeout = min(timeout, a.cfg.QueryTimeout)
	}
	return &barrier{
		cluster: a.cfg.Cluster, state: a.cfg.FSM, level: a.cfg.Consistency,
		maxStaleness: a.cfg.MaxStaleness, timeout: timeout,
	}
}

// wrap is the middleware of all reads. It tells the reader the index of the state that the answer comes from, taken
// before the read began: the answer holds at least that.
func (b *barrier) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerNode, b.cluster.ID())
		level, minIndex, err := b.asked(r)
		if err != nil {
			respondError(w, http.StatusBadRequest, errBadData, err)
			return
		}
		if err := b.pass(r.Context(), level, minIndex); err != nil {
			w.Header().Set("Retry-After", "1")
			respondError(w, http.StatusServiceUnavailable, errUnavailable, err)
			return
		}
		index, _ := b.state.Applied()
		w.Header().Set(headerIndex, strconv.FormatUint(index, 10))
		next.ServeHTTP(w, r)
	})
}

// asked reads what r says about consistency. The header wins over the parameter, both over the default.
func (b *barrier) asked(r *http.Request) (level Level, minIndex uint64, err error) {
	level = b.level
	if s := namedLevel(r); s != "" {
		if level, err = ParseLevel(s); err != nil {
			return "", 0, err
		}
	}
	if s := r.Header.Get(headerMinIndex); s != "" {
		if minIndex, err = strconv.ParseUint(s, 10, 64); err != nil {
			return "", 0, fmt.Errorf("invalid %s %q: not a log index", headerMinIndex, s)
		}
	}
	return level, minIndex, nil
}

// namedLevel is the level that r names itself, "" if none. It reads the body of a POSTed form, which the handler behind
// finds all the same, but no other body, such as remote read's.
func namedLevel(r *http.Request) string {
	if s := r.Header.Get(headerConsistency); s != "" {
		return s
	}
	if strings.HasSuffix(r.URL.Path, "/read") {
		return r.URL.Query().Get(paramConsistency)
	}
	if r.Form != nil {
		return r.FormValue(paramConsistency)
	}
	body := r.Body
	var seen bytes.Buffer
	r.Body = readCloser{io.TeeReader(body, &seen), body}
	err := r.ParseForm()
	r.Body = body
	if err == nil {
		return r.FormValue(paramConsistency)
	}
	// A second ParseForm would find no fault any more, and the handler behind would answer what was half understood.
	level := r.FormValue(paramConsistency)
	r.Form, r.PostForm, r.Body = nil, nil, readCloser{io.MultiReader(&seen, body), body}
	return level
}

type readCloser struct {
	io.Reader
	io.Closer
}

func asksForLocal(r *http.Request) bool { return namedLevel(r) == string(Local) }

// pass returns when the state is fresh enough, or says why it is not going to be.
func (b *barrier) pass(ctx context.Context, level Level, minIndex uint64) error {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	switch level {
	case Bounded:
		if s := b.cluster.Staleness(); s > b.maxStaleness && !plant.IgnoreStaleness {
			return fmt.Errorf("state of this node is %s behind the leader, more than %s", age(s), b.maxStaleness)
		}
	case Linearizable:
		index, err := b.cluster.ReadIndex(ctx)
		if err != nil {
			return fmt.Errorf("read index: %w", err)
		}
		minIndex = max(minIndex, index)
	}
	if minIndex == 0 {
		return nil
	}
	if err := b.state.Wait(ctx, minIndex); err != nil {
		applied, _ := b.state.Applied()
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("this node is at index %d", applied)
		}
		return fmt.Errorf("wait for index %d: %w", minIndex, err)
	}
	return nil
}

func age(d time.Duration) string {
	if d == math.MaxInt64 {
		return "unknown time"
	}
	return d.Round(time.Millisecond).String()
}
