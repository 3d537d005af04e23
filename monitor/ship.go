// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/deucaliondb/deucalion/fsm"
)

// ShipLog is what shipping needs of *cluster.Node.
type ShipLog interface {
	// RunDuty runs fn whenever this node leads; its context ends with the leadership.
	RunDuty(fn func(ctx context.Context))
	// Propose puts an entry into the log.
	Propose(ctx context.Context, entry []byte) (fsm.Result, error)
	// AppliedEntry returns an entry of the log, nil for one of Raft's own, cluster.ErrCompacted for one that is gone.
	AppliedEntry(index uint64) ([]byte, error)
	// FirstLogIndex is where the log begins, 0 if it is empty.
	FirstLogIndex() uint64
}

// ShipperOptions configure a Shipper.
type ShipperOptions struct {
	Log ShipLog
	FSM *fsm.FSM
	// Dir is the data directory; remote-write in it is the Shipper's.
	Dir string
	// FlushDeadline is how long a queue may send what it has when it ends, as --storage.remote.flush-deadline (default 1 min).
	FlushDeadline time.Duration
	// TypeAndUnitLabels is the feature type-and-unit-labels.
	TypeAndUnitLabels bool
	Logger            *slog.Logger
	Registerer        prometheus.Registerer
}

// Shipper sends what is committed to the remote stores of the configuration file, from the leader, with Prometheus's
// queue managers. How far each of them has got is kept in the log: the next leader goes on there. Goroutine-safe.
type Shipper struct {
	opts    ShipperOptions
	logger  *slog.Logger
	metrics *shipMetrics
	queues  queueOptions

	mu      sync.Mutex // protects the following
	want    []*remoteStore
	changed chan struct{}      // closed and replaced when want changes
	stopped context.Context    // set by Stop: how long that may take
	cancel  context.CancelFunc // of the term that is under way, or nil
	idle    chan struct{}      // closed while no term is under way

	ending sync.WaitGroup // feeds of terms that are over
}

// NewShipper registers its metrics with o.Registerer, and its duty. Without ApplyConfig there are no remote stores.
func NewShipper(o ShipperOptions) (*Shipper, error) {
	if o.FlushDeadline <= 0 {
		o.FlushDeadline = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	dir := filepath.Join(o.Dir, "remote-write")
	if err := makeEmptyWAL(dir); err != nil {
		return nil, fmt.Errorf("directory of remote write: %w", err)
	}
	probe := remote.NewWriteStorage(nil, nil, dir, time.Second, nil, false)
	_, err := managerOf(probe)
	if err = errors.Join(err, probe.Close()); err != nil {
		return nil, err
	}
	s := &Shipper{opts: o, logger: o.Logger, metrics: newShipMetrics(o.Registerer, o.FSM), changed: make(chan struct{}), idle: make(chan struct{})}
	close(s.idle)
	s.queues = queueOptions{dir: dir, flushDeadline: o.FlushDeadline, typeAndUnit: o.TypeAndUnitLabels, logger: o.Logger, metrics: s.metrics}
	o.Log.RunDuty(s.lead)
	return s, nil
}

// ApplyConfig takes the remote stores of c, on any node. Queues whose section has not changed go on. On an error nothing
// changes.
func (s *Shipper) ApplyConfig(c *config.Config) error {
	want, err := remoteStores(c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want = want
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// noteReserve is what Stop keeps of its time for noting in the log what has arrived.
const noteReserve = time.Second

// Stop ends the shipping: the queues send what they have, for the flush deadline at most and until a second before ctx
// ends, and what has arrived is noted in the log. It must be called while the node still takes part. It waits for all
// goroutines, but not longer than ctx: a queue that waits to repeat an attempt ends within a flush deadline by itself,
// without sending anything more.
func (s *Shipper) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = ctx
	if s.cancel != nil {
		s.cancel()
	}
	idle := s.idle
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-idle
		s.ending.Wait()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return errors.New("queues that wait to repeat an attempt were not waited for")
	}
}

// flush is how long queues may send what they have when Stop may take until ctx ends.
func (s *Shipper) flush(ctx context.Context) (context.Context, context.CancelFunc) {
	d := s.opts.FlushDeadline
	if end, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(end)-noteReserve)
	}
	return context.WithTimeout(ctx, d)
}

// begin returns the context of a term, nil after Stop.
func (s *Shipper) begin(ctx context.Context) (term context.Context, end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped != nil {
		return nil, nil
	}
	term, cancel := context.WithCancel(ctx)
	idle := make(chan struct{})
	s.cancel, s.idle = cancel, idle
	return term, func() {
		cancel()
		close(idle)
	}
}

// wanted returns the remote stores, and a channel that is closed when they change.
func (s *Shipper) wanted() ([]*remoteStore, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want, s.changed
}

// stopping is nil before Stop.
func (s *Shipper) stopping() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}
