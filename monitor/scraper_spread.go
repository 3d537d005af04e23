// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"time"

	"github.com/prometheus/prometheus/scrape"
)

// membersEvery is how often the members are looked at when gossip tells of no change: which of them belong to the cluster
// the Raft configuration says, which tells nobody.
const membersEvery = 500 * time.Millisecond

// spread gives the scrape manager this node's share of the targets whenever the targets or the shares change, until the
// context ends. A change of the shares passes at once; discovery is followed once every pause.
func (s *Scraper) spread() {
	var c catalogue
	var mine share
	var waiting targetSets // from discovery, nil: none
	tick := time.NewTicker(membersEvery)
	defer tick.Stop()
	due := time.NewTimer(0)
	defer due.Stop()
	<-due.C
	open := true // discovery may pass
	for {
		changed := s.cluster.MembersChanged()
		if now := s.share(mine); !now.equal(mine) {
			s.move(&c, mine, now)
			mine = now
		}
		select {
		case <-s.ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		case <-s.wake:
			s.configure(&c, mine)
		case found := <-s.discovery.SyncCh():
			if found != nil { // else closed
				waiting = found
			}
		case <-due.C:
			open = true
		}
		if open && waiting != nil {
			c.update(waiting)
			s.pass(&c, mine)
			waiting, open = nil, false
			due.Reset(s.pause)
		}
	}
}

// configure takes over the configurations that ApplyConfig left, if they are new.
func (s *Scraper) configure(c *catalogue, mine share) {
	s.mu.Lock()
	configs := s.configs
	s.configs = nil
	s.mu.Unlock()
	if configs == nil {
		return
	}
	c.setConfigs(configs)
	if c.sets != nil {
		s.pass(c, mine)
	}
}

// share is what this node scrapes now, given what it scraped before. A node is in by what gossip says of it, like all
// others: so it stops when they begin. One whose gossip does not reach the leader, because it has just started or is cut
// off, stays at what it has: to it all others look dead, and it would scrape everything.
func (s *Scraper) share(before share) share {
	if s.mode == ShardLeader {
		return share{all: s.leading.Load()}
	}
	now := share{self: s.cluster.ID()}
	leader, known := s.cluster.Leader()
	reached, in := false, false
	for _, m := range s.cluster.Members() {
		reached = reached || known && m.ID == leader
		if m.Attributes[attribute] != "" {
			now.members = append(now.members, m.ID)
			in = in || m.ID == now.self
		}
	}
	if in && !reached {
		return before
	}
	return now
}

// move passes on a new share. A target that goes to another node gets no stale markers from this one: they would come
// two intervals later, and hide its samples if the other node's were late.
func (s *Scraper) move(c *catalogue, from, to share) {
	come, gone := c.moves(from, to)
	went := 0
	for job, targets := range s.manager.TargetsActive() {
		var moved []*scrape.Target
		for _, t := range targets {
			if gone[job][targetKey(job, t.URL().String())] {
				moved = append(moved, t)
			}
		}
		s.manager.DisableEndOfRunStalenessMarkers(job, moved)
		went += len(moved)
	}
	s.moves.WithLabelValues("in").Add(float64(come))
	s.moves.WithLabelValues("out").Add(float64(went))
	if c.sets == nil {
		return
	}
	s.logger.Info("Nodes that scrape have changed", "members", to.members, "targets_in", come, "targets_out", went)
	s.pass(c, to)
}

// pass gives the scrape manager what mine owns. It does not wait: what was not taken yet is replaced.
func (s *Scraper) pass(c *catalogue, mine share) {
	sets, n := c.own(mine)
	s.targets.Set(float64(n))
	select {
	case <-s.out:
	default:
	}
	s.out <- sets
}
