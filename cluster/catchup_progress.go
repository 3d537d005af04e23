// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"sync"
	"time"
)

// progressEvery is how often a fetch that runs says so in the log.
const progressEvery = 10 * time.Second

// CatchUpStatus tells how far a node is that fetches what it lacks from another node.
type CatchUpStatus struct {
	Snapshot string `json:"snapshot"`
	Source   string `json:"source"` // node id
	Index    uint64 `json:"index"`  // of the snapshot
	// FromIndex is the index of the state on this disk that blocks are kept of; 0: none is.
	FromIndex    uint64 `json:"from_index"`
	FetchBytes   int64  `json:"fetch_bytes"`   // all that has to come, 0 until that is known
	FetchedBytes int64  `json:"fetched_bytes"` // has come
	KeptBytes    int64  `json:"kept_bytes"`    // is on this disk
	Started      string `json:"started"`       // RFC 3339
	Err          string `json:"err,omitempty"` // why the last attempt ended
}

// progress of one fetch. Goroutine-safe.
type progress struct {
	start time.Time
	state int64 // size of the state file

	mu     sync.Mutex // protects the following
	status CatchUpStatus
	here   map[string]int64 // files that have arrived
	whole  int64            // their bytes
	last   time.Time        // when the last byte came
	logged time.Time
}

func newProgress(o *offer) *progress {
	now := time.Now()
	return &progress{
		start: now, last: now, logged: now, state: o.manifest.State.Size, here: make(map[string]int64),
		status: CatchUpStatus{Snapshot: o.Snapshot, Source: o.Node, Index: o.Index, Started: now.UTC().Format(time.RFC3339)},
	}
}

// plan notes what was decided.
func (p *progress) plan(from uint64, fetch, keep int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.FromIndex, p.status.FetchBytes, p.status.KeptBytes = from, fetch+p.state, keep
	p.last = time.Now() // checking what is here may have taken minutes
}

// part notes that have bytes of the current file are here.
func (p *progress) part(have int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.FetchedBytes = p.whole + have
}

// received notes n bytes of the current file, which make it have long.
func (p *progress) received(n int, have int64) {
	p.part(have)
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > 0 {
		p.last, p.status.Err = time.Now(), ""
	}
}

// arrived notes that a file is here.
func (p *progress) arrived(name string, size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.here[name] = size
	p.whole += size
	p.status.FetchedBytes, p.last = p.whole, time.Now()
}

// again forgets what has arrived, so that it is looked at once more.
func (p *progress) again() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.here)
	p.whole = 0
}

// none notes that nothing is here any more.
func (p *progress) none() {
	p.again()
	p.part(0)
}

func (p *progress) has(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.here[name]
	return ok
}

// moved is when something came the last time.
func (p *progress) moved() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

func (p *progress) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Err = err.Error()
}

func (p *progress) get() CatchUpStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// args are the fields of log lines.
func (p *progress) args() []any {
	s := p.get()
	return []any{
		"snapshot", s.Snapshot, "source", s.Source, "index", s.Index, "from_index", s.FromIndex, "fetched_bytes", s.FetchedBytes,
		"fetch_bytes", s.FetchBytes, "keep_bytes", s.KeptBytes, "duration", time.Since(p.start).Round(time.Millisecond),
	}
}

// logProgress says every progressEvery how far the fetch is.
func (f *fetch) logProgress() {
	p := f.progress
	p.mu.Lock()
	due := time.Since(p.logged) >= progressEvery
	if due {
		p.logged = time.Now()
	}
	p.mu.Unlock()
	if due {
		f.logger.Info("Catching up", p.args()...)
	}
}

// status is nil when there is nothing to catch up with.
func (c *catchUp) status() *CatchUpStatus {
	c.mu.Lock()
	p := c.progress
	c.mu.Unlock()
	if p == nil {
		return nil
	}
	s := p.get()
	return &s
}

// missing is what is still to come.
func (c *catchUp) missing() int64 {
	s := c.status()
	if s == nil {
		return 0
	}
	return max(0, s.FetchBytes-s.FetchedBytes)
}
