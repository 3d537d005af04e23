// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/prometheus/storage"

	"github.com/deucaliondb/deucalion/cluster"
)

const (
	// attribute is how a node tells the others by gossip that it scrapes.
	attribute = "scrape"
	// partEvery is how often a node asks itself whether it takes part.
	partEvery = 250 * time.Millisecond
	// partGrace is how long a node takes part that is not ready for a reason which may pass, such as an election. It
	// comes on top of the time after which a node without a leader is not ready.
	partGrace = 5 * time.Second
	// leaveWait is how long a node that stops goes on scraping until its own gossip says that it does not.
	leaveWait = 3 * time.Second
	// commitWait is how long after that commits may go on. Without a majority, as when all nodes stop, they would
	// hold up the stop for their whole timeout.
	commitWait = 2 * time.Second
)

// takePart tells the other nodes whether this one scrapes, until Stop.
func (s *Scraper) takePart() {
	tick := time.NewTicker(partEvery)
	defer tick.Stop()
	defer s.cluster.SetAttribute(attribute, "")
	var p part
	for {
		if in, changed := p.look(s.cluster.Ready(), time.Now()); changed {
			value := ""
			if in {
				value = "1"
			}
			s.cluster.SetAttribute(attribute, value)
		}
		select {
		case <-s.leave:
			return
		case <-tick.C:
		}
	}
}

// part is whether a node takes part.
type part struct {
	in    bool
	ready time.Time // when it last was
}

// look judges what Ready says.
func (p *part) look(err error, now time.Time) (in, changed bool) {
	was := p.in
	switch {
	case err == nil:
		p.in, p.ready = true, now
	case errors.Is(err, cluster.ErrStopped), errors.Is(err, cluster.ErrDiskFull), errors.Is(err, cluster.ErrClockOff), errors.Is(err, cluster.ErrFSMFailed):
		p.in = false
	default:
		p.in = p.in && now.Sub(p.ready) < partGrace
	}
	return p.in, p.in != was
}

// lead scrapes all targets while this node leads.
func (s *Scraper) lead(term context.Context) {
	select {
	case <-s.leave:
		return
	default:
	}
	s.leading.Store(true)
	s.nudge()
	select {
	case <-term.Done():
	case <-s.ctx.Done():
	}
	s.leading.Store(false)
	s.nudge()
}

// Stop hands the targets over and ends all scraping. The other nodes begin when they hear of it, and this one stops then,
// without stale markers. It waits for scrapes under way, but not longer than ctx. Later calls wait for nothing.
func (s *Scraper) Stop(ctx context.Context) error {
	var err error
	s.left.Do(func() { err = s.stop(ctx) })
	return err
}

func (s *Scraper) stop(ctx context.Context) error {
	close(s.leave)
	s.awaitLeft(ctx)
	s.cancel()
	defer time.AfterFunc(commitWait, s.cut).Stop()
	defer s.cut()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for job, targets := range s.manager.TargetsActive() {
			s.manager.DisableEndOfRunStalenessMarkers(job, targets)
		}
		s.manager.Stop()
		s.running.Wait()
	}()
	select {
	case <-stopped:
		s.targets.Set(0)
		return nil
	case <-ctx.Done():
		return errors.New("scrapes under way were not waited for")
	}
}

// awaitLeft returns when gossip says of this node that it does not scrape.
func (s *Scraper) awaitLeft(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveWait)
	defer cancel()
	for s.scrapes() {
		select {
		case <-ctx.Done():
			return
		case <-s.cluster.MembersChanged():
		case <-time.After(partEvery):
		}
	}
}

// scrapes tells whether the others think that this node takes part.
func (s *Scraper) scrapes() bool {
	for _, m := range s.cluster.Members() {
		if m.ID == s.cluster.ID() {
			return m.Attributes[attribute] != ""
		}
	}
	return false
}

// cutAppendable lets Stop end commits that wait. A scrape pool has no use for its own context here: it ends when nothing
// is being appended any more.
type cutAppendable struct {
	storage.AppendableV2
	ctx context.Context
}

// AppenderV2 implements storage.AppendableV2.
func (a cutAppendable) AppenderV2(context.Context) storage.AppenderV2 {
	return a.AppendableV2.AppenderV2(a.ctx)
}
