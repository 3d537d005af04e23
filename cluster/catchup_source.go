// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/deucaliondb/deucalion/fsm"
)

const (
	// leaseTime is how long a snapshot stays after the last request for one of its files. The leader's Raft comes
	// back to a follower that has everything within ten seconds.
	leaseTime = time.Minute
	// stallTimeout: a transfer that moves no byte for so long is broken.
	stallTimeout = 30 * time.Second
	maxChunk     = 128 << 10
)

// source serves the files of this node's Raft snapshots to nodes that are too far behind for the log.
type source struct {
	store   *SnapshotStore
	logger  *slog.Logger
	metrics *metrics
	limiter *rate.Limiter // of all transfers together
	chunk   int

	transfers sync.WaitGroup

	mu     sync.Mutex // protects the following
	closed bool
	leases map[string]*lease // by snapshot id
}

// lease keeps a snapshot that is being fetched from being reaped.
type lease struct {
	dir    string
	sizes  map[string]int64 // of the files that the manifest lists
	unpin  func() error
	active int       // transfers under way
	last   time.Time // end of the last one
	sent   int64
}

// newSource serves at most maxRate bytes a second, 0 = no limit.
func newSource(n *Node) *source {
	s := &source{
		store: n.snapshots, logger: n.logger, metrics: n.metrics, leases: make(map[string]*lease),
		limiter: rate.NewLimiter(rate.Inf, maxChunk), chunk: maxChunk,
	}
	if r := n.cfg.SnapshotMaxRate; r > 0 {
		// Small pieces when the rate is low: a waiting follower must see a byte before it takes us for dead.
		s.chunk = int(min(max(r/10, 1<<10), maxChunk))
		s.limiter = rate.NewLimiter(rate.Limit(r), s.chunk)
	}
	return s
}

// leased tells whether snapshot id is being fetched.
func (s *source) leased(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.leases[id]
	return ok
}

// acquire begins a transfer from snapshot id; release ends it.
func (s *source) acquire(id, to string) (*lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrStopped
	}
	l := s.leases[id]
	if l == nil {
		var err error
		if l, err = s.newLease(id); err != nil {
			return nil, err
		}
		s.leases[id] = l
		s.logger.Info("A node that is too far behind for the log fetches a Raft snapshot", "snapshot", id, "from", to)
	}
	l.active++
	s.transfers.Add(1)
	return l, nil
}

func (s *source) newLease(id string) (*lease, error) {
	dir, unpin, err := s.store.pin(id)
	if err != nil {
		return nil, err
	}
	m, err := fsm.ReadManifest(dir)
	if err != nil {
		return nil, errors.Join(err, unpin())
	}
	l := &lease{dir: dir, unpin: unpin, sizes: map[string]int64{m.State.Path: m.State.Size}}
	for _, b := range m.Blocks {
		for _, f := range b.Files {
			l.sizes[remotePath(b, f)] = f.Size
		}
	}
	return l, nil
}

func (s *source) release(l *lease, sent int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.active--
	l.sent += sent
	l.last = time.Now()
	s.transfers.Done()
}

// expire gives up leases that nobody has used for a while.
func (s *source) expire(ctx context.Context) {
	tick(ctx, time.Second, func() { s.drop(leaseTime) })
}

func (s *source) drop(idle time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.leases {
		if l.active > 0 || time.Since(l.last) < idle {
			continue
		}
		delete(s.leases, id)
		if err := l.unpin(); err != nil {
			s.logger.Error("Cannot remove an old Raft snapshot", "snapshot", id, "err", err)
		}
		s.logger.Info("Nobody fetches the Raft snapshot any more", "snapshot", id, "sent_bytes", l.sent)
	}
}

// close waits for the transfers, whose connections have been closed.
func (s *source) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.transfers.Wait()
	s.drop(0)
}

// serve answers rpcSnapshotFile: the file path of snapshot id from offset to its end.
func (s *source) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	offset, err := strconv.ParseInt(q.Get("offset"), 10, 64)
	if err != nil || offset < 0 {
		http.Error(w, "bad offset", http.StatusBadRequest)
		return
	}
	l, err := s.acquire(q.Get("id"), r.Header.Get(headerFrom))
	switch {
	case errors.Is(err, os.ErrNotExist):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	var sent int64
	defer func() { s.release(l, sent) }()
	name := q.Get("path")
	size, ok := l.sizes[name] // nothing but what the manifest lists leaves this node
	switch {
	case !ok:
		http.Error(w, "no such file in the snapshot", http.StatusNotFound)
		return
	case offset > size:
		http.Error(w, fmt.Sprintf("offset beyond the end at %d", size), http.StatusRequestedRangeNotSatisfiable)
		return
	}
	if sent, err = s.serveFile(w, r, filepath.Join(l.dir, filepath.FromSlash(name)), offset, size); err != nil {
		panic(http.ErrAbortHandler) // the body is short, and the follower shall know at once
	}
}

// serveFile answers with a file of that size from offset on, and returns how much of it was sent; or an error when
// that is less than was announced.
func (s *source) serveFile(w http.ResponseWriter, r *http.Request, name string, offset, size int64) (sent int64, err error) {
	f, err := os.Open(name)
	if err == nil {
		defer f.Close()
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return 0, nil
	}
	w.Header().Set("Content-Length", strconv.FormatInt(size-offset, 10))
	if sent, err = s.send(r.Context(), w, f, size-offset); err != nil {
		s.logger.Debug("A transfer of a file has ended early", "file", name, "sent", sent, "err", err)
	}
	return sent, err
}

// send copies n bytes at the allowed rate.
func (s *source) send(ctx context.Context, w http.ResponseWriter, f io.Reader, n int64) (sent int64, err error) {
	control := http.NewResponseController(w)
	buf := make([]byte, s.chunk)
	for sent < n {
		b := buf[:min(int64(len(buf)), n-sent)]
		if _, err := io.ReadFull(f, b); err != nil {
			return sent, err
		}
		if err := s.limiter.WaitN(ctx, len(b)); err != nil {
			return sent, err
		}
		if err := control.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
			return sent, err
		}
		k, err := w.Write(b)
		sent += int64(k)
		s.metrics.snapshotSent.Add(float64(k))
		if err == nil {
			err = control.Flush()
		}
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}
