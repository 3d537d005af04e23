// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/deucaliondb/deucalion/storage"
)

// digestMemory is how many results of digests a node keeps.
const digestMemory = 16

// DigestResult is what one node found. Nodes at the same log index must agree in
// StateHash and Ranges, whatever the layout of their files.
type DigestResult struct {
	ID    string `json:"id"`
	Index uint64 `json:"index"` // of the entry
	// StateHash is of everything but samples: series table, settings, exemplars,
	// metadata and the parameters of admission.
	StateHash string        `json:"state_hash,omitempty"`
	Ranges    []RangeDigest `json:"ranges,omitempty"`
	Seconds   float64       `json:"seconds"`
	Busy      bool          `json:"busy,omitempty"` // not computed: another digest was under way
	Err       string        `json:"err,omitempty"`
}

// RangeDigest is the digest of the samples of a range.
type RangeDigest struct {
	TimeRange
	Series  uint64 `json:"series"`
	Samples uint64 `json:"samples"`
	Hash    string `json:"hash"`
}

// digests computes one at a time, in the background.
type digests struct {
	f  *FSM
	wg sync.WaitGroup

	// mu protects the following.
	mu      sync.Mutex
	runs    []*digestRun // oldest first
	running bool
	from    uint64 // entries at or below are not computed
}

type digestRun struct {
	result DigestResult // valid once done is closed
	done   chan struct{}
}

// start takes hold of the state now and hashes it in the background. Applier
// only.
func (d *digests) start(index uint64, e Digest) {
	run := d.begin(index, e.ID)
	if run == nil {
		return
	}
	s, err := d.f.Snapshot()
	if err != nil { // a full disk, say: nothing of the state is lost
		d.end(run, DigestResult{}, err)
		return
	}
	d.wg.Add(1)
	go func() {
		defer d.wg.Done()
		defer s.Release()
		r, err := s.digest(d.f.ctx, e)
		d.end(run, r, err)
	}()
}

// begin returns nil if there is nothing to do: for a replayed entry, for an id that is known, and when
// another digest is under way, which then is the result.
func (d *digests) begin(index uint64, id string) *digestRun {
	d.mu.Lock()
	defer d.mu.Unlock()
	if index <= d.from {
		return nil
	}
	for _, r := range d.runs {
		if r.result.ID == id {
			return nil
		}
	}
	run := &digestRun{result: DigestResult{ID: id, Index: index}, done: make(chan struct{})}
	if len(d.runs) == digestMemory {
		d.runs = d.runs[1:]
	}
	d.runs = append(d.runs, run)
	if d.running {
		run.result.Busy, run.result.Err = true, "busy with another digest"
		close(run.done)
		return nil
	}
	d.running = true
	return run
}

func (d *digests) end(run *digestRun, r DigestResult, err error) {
	r.ID, r.Index = run.result.ID, run.result.Index
	if err != nil {
		r.Err = err.Error()
		if !errors.Is(err, context.Canceled) && !errors.Is(err, storage.ErrClosed) {
			d.f.m.digestFailures.Inc()
			d.f.log.Error("This node cannot compute a digest of its data", "id", r.ID, "index", r.Index, "err", err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	run.result, d.running = r, false
	close(run.done)
}

// SkipDigests makes this node pass over the digests up to index: those in the log
// when it starts. Nobody waits for them any more, and a replay would hit upon
// several at once.
func (f *FSM) SkipDigests(index uint64) {
	f.digests.mu.Lock()
	defer f.digests.mu.Unlock()
	f.digests.from = index
}

// WaitDigest waits for this node's result; ErrUnknownTask if the node knows no
// digest with this id: its entry is not applied yet, or long ago, or was skipped
// by a snapshot.
func (f *FSM) WaitDigest(ctx context.Context, id string) (DigestResult, error) {
	run := f.digests.find(id)
	if run == nil {
		return DigestResult{}, ErrUnknownTask
	}
	select {
	case <-run.done:
		return run.result, nil
	case <-ctx.Done():
		return DigestResult{}, ctx.Err()
	}
}

func (d *digests) find(id string) *digestRun {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.runs {
		if r.result.ID == id {
			return r
		}
	}
	return nil
}

// digest hashes the state that the snapshot holds.
func (s *Snapshot) digest(ctx context.Context, e Digest) (r DigestResult, err error) {
	start := time.Now()
	p := newPacer(e.Hurry)
	dir, err := os.MkdirTemp(filepath.Join(s.f.opts.Dir, "live"), "digest-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	blocks, err := s.samples.Persist(ctx, dir)
	if err != nil {
		return r, fmt.Errorf("write blocks: %w", err)
	}
	s.Release() // what follows may take long, and needs the links in dir alone
	state, err := s.stateHash(ctx, p)
	if err != nil {
		return r, err
	}
	s.series, s.exemplars, s.metadata = nil, nil, nil
	q, err := s.samples.Open(dir, blocks)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	for _, x := range e.Ranges {
		rd, err := digestRange(ctx, q, x, p)
		if err != nil {
			return r, fmt.Errorf("samples from %d to %d: %w", x.Mint, x.Maxt, err)
		}
		r.Ranges = append(r.Ranges, rd)
	}
	r.StateHash, r.Seconds = hashText(state), time.Since(start).Seconds()
	return r, nil
}

// digestRange hashes series by series in the order of their labels. Series
// without samples in the range do not count: they exist in some layouts only.
func digestRange(ctx context.Context, r *storage.SnapshotReader, x TimeRange, p *pacer) (out RangeDigest, err error) {
	out.TimeRange = x
	q, err := r.ExactQuerier(x.Mint, x.Maxt)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	all := labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".*")
	set := q.Select(ctx, true, &promstorage.SelectHints{Start: x.Mint, End: x.Maxt}, all)
	h, whole := newHasher(), newHasher()
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		it = s.Iterator(it)
		h.reset()
		h.labels(s.Labels())
		n := uint64(0)
		last := int64(math.MinInt64)
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			if err := p.step(ctx); err != nil {
				return out, err
			}
			if t := it.AtT(); n > 0 && t == last {
				continue
			}
			last = h.sample(it, vt)
			n++
		}
		if err := it.Err(); err != nil {
			return out, fmt.Errorf("%s: %w", s.Labels(), err)
		}
		if n == 0 {
			continue
		}
		whole.u64(h.sum())
		out.Series++
		out.Samples += n
	}
	out.Hash = hashText(whole.sum())
	return out, set.Err()
}
