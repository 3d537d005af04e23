// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

// importAttempts is how often a member asks for a file before the import that is being distributed fails.
const importAttempts = 5

// spread returns when all live members have the files of x on disk, and at least a majority of the voters does.
func (m *imports) spread(ctx context.Context, x fsm.Import) error {
	servers := m.node.servers()
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		if string(s.ID) == m.node.id {
			continue
		}
		wg.Go(func() { errs[i] = m.spreadTo(ctx, string(s.ID), x) })
	}
	wg.Wait()
	have, votes := 0, 0
	var failed []error
	for i, s := range servers {
		voter := s.Suffrage == raft.Voter
		if voter {
			votes++
		}
		switch {
		case errs[i] == nil && voter:
			have++
		case errs[i] != nil && !errors.Is(errs[i], errDead):
			failed = append(failed, fmt.Errorf("node %s: %w", s.ID, errs[i]))
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("not all members have the blocks, nothing is imported: %w", errors.Join(failed...))
	}
	if have < votes/2+1 {
		return fmt.Errorf("%w: only %d of %d voters have the blocks, nothing is imported", ErrNoLeader, have, votes)
	}
	return nil
}

type importRequest struct {
	Import fsm.Import `json:"import"`
	From   string     `json:"from"`
}

func (m *imports) spreadTo(ctx context.Context, id string, x fsm.Import) error {
	var reply awaitReply
	return m.node.pollMember(ctx, id, rpcImport, importRequest{x, m.node.id}, &reply, func() (bool, error) {
		if reply.Err != "" {
			return true, errors.New(reply.Err)
		}
		return reply.Done, nil
	})
}

// handleImport makes this node fetch the files of an import. It answers within awaitPoll, and is asked again.
func (n *Node) handleImport(ctx context.Context, body []byte) ([]byte, error) {
	var r importRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	if err := r.Import.Check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, awaitPoll)
	defer cancel()
	n.imports.touch(r.Import.ID)
	if _, err := n.imports.list(r.Import.ID); err == nil {
		return jsonReply(awaitReply{Done: true})
	}
	f, _ := n.imports.fetch(r.Import, []string{r.From})
	select {
	case <-f.done:
		if f.err != nil {
			return jsonReply(awaitReply{Err: f.err.Error()})
		}
		return jsonReply(awaitReply{Done: true})
	case <-n.ctx.Done():
		return nil, ErrStopped
	case <-ctx.Done():
		return jsonReply(awaitReply{})
	}
}

// importFetch is a fetch under way.
type importFetch struct {
	done chan struct{}
	err  error // constant once done is closed
}

// fetch begins to bring the files of x here from one of the nodes, or joins a fetch (of others, perhaps: mine is false)
// that does. done may stay open when this node stops.
func (m *imports) fetch(x fsm.Import, from []string) (f *importFetch, mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.fetches[x.ID]; f != nil {
		return f, false
	}
	f = &importFetch{done: make(chan struct{})}
	m.fetches[x.ID] = f
	m.node.loop(func(ctx context.Context) {
		if f.err = m.fetchFrom(ctx, x, from); f.err == nil {
			m.lookAhead(ctx, x)
		}
		m.mu.Lock()
		delete(m.fetches, x.ID)
		m.used[x.ID] = time.Now()
		m.mu.Unlock()
		close(f.done)
	})
	return f, true
}

// lookAhead keeps the applier from being held up for long by the import.
func (m *imports) lookAhead(ctx context.Context, x fsm.Import) {
	if err := m.node.fsm.LookAhead(ctx, m.path(x.ID), x); err != nil && ctx.Err() == nil {
		m.logger.Warn("Cannot prepare an import, it will hold up the log for longer", "id", x.ID, "err", err)
	}
}

// fetchFrom tries the nodes one after the other. The error wraps errGone if none of them has the files.
func (m *imports) fetchFrom(ctx context.Context, x fsm.Import, from []string) error {
	if err := m.room(x.Bytes()); err != nil {
		return err
	}
	var errs []error
	gone := 0
	for _, id := range from {
		err := m.fetchAll(ctx, x, id)
		if err == nil {
			return m.finish(x)
		}
		if errors.Is(err, errGone) {
			gone++
		}
		errs = append(errs, err)
	}
	if len(from) == 0 {
		return fmt.Errorf("fetch import %s: %w", x.ID, errGone)
	}
	if gone < len(from) {
		return fmt.Errorf("fetch import %s: %s", x.ID, errors.Join(errs...)) // hides errGone: somebody may have them
	}
	return fmt.Errorf("fetch import %s: %w", x.ID, errors.Join(errs...))
}

func (m *imports) fetchAll(ctx context.Context, x fsm.Import, from string) error {
	for _, b := range x.Blocks {
		for _, f := range b.Files {
			err := m.fetchFile(ctx, x.ID, from, b, f)
			for i := 1; i < importAttempts && err != nil && !errors.Is(err, errGone) && ctx.Err() == nil; i++ {
				m.logger.Warn("A file of an import did not come, trying again", "id", x.ID, "from", from, "file", f.Path, "err", err)
				sleep(ctx, fetchRetryMin<<i)
				err = m.fetchFile(ctx, x.ID, from, b, f)
			}
			if err != nil {
				return fmt.Errorf("%s of %s from node %s: %w", f.Path, b.ULID, from, err)
			}
		}
	}
	return nil
}

func (m *imports) fetchFile(ctx context.Context, id, from string, b storage.BlockFiles, f storage.File) error {
	rel := path.Join(b.ULID.String(), f.Path)
	name := filepath.Join(m.path(id), filepath.FromSlash(rel))
	if same, err := sameFile(name, f); same || err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return remoteFile{
		File: f,
		open: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
			return m.node.client.openBulk(ctx, from, rpcImportFile, url.Values{"id": {id}, "path": {rel}, "offset": {strconv.FormatInt(offset, 10)}})
		},
		note: func(n int, _ int64) {
			m.metrics.importFetched.Add(float64(n))
			m.touch(id)
		},
	}.download(ctx, name)
}

// importServed tells of transfers of an import's files to other members.
type importServed struct {
	active int
	last   time.Time // when one began or ended
}

// serving keeps an import from being tidied away, until importGrace after done is called.
func (m *imports) serving(id string) (done func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.served[id]
	if s == nil {
		s = &importServed{}
		m.served[id] = s
	}
	s.active++
	s.last = time.Now()
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		s.active--
		s.last = time.Now()
	}
}

// serve answers rpcImportFile: a file of an import that is all here.
func (m *imports) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	offset, err := strconv.ParseInt(q.Get("offset"), 10, 64)
	if err != nil || offset < 0 {
		http.Error(w, "bad offset", http.StatusBadRequest)
		return
	}
	id := q.Get("id")
	var x fsm.Import
	if err = (fsm.Import{ID: id}).Check(); err == nil {
		x, err = m.list(id)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		http.Error(w, "this node does not have the import", http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	for _, b := range x.Blocks {
		for _, f := range b.Files {
			rel := path.Join(b.ULID.String(), f.Path)
			if rel != q.Get("path") || offset > f.Size {
				continue
			}
			m.touch(id)
			defer m.serving(id)()
			if _, err := m.node.source.serveFile(w, r, filepath.Join(m.path(id), filepath.FromSlash(rel)), offset, f.Size); err != nil {
				panic(http.ErrAbortHandler) // the body is short, and the other node shall know at once
			}
			return
		}
	}
	http.Error(w, "no such file in the import", http.StatusNotFound)
}
