// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"sync"
	"time"
)

const (
	clockEvery   = time.Second
	clockHurry   = 100 * time.Millisecond // until the first comparison
	clockTimeout = 900 * time.Millisecond // of a question
	// clockPatience is how long a start waits to be able to compare.
	clockPatience = 10 * time.Second
	// clockHandOver is the pause between two attempts to get rid of the leadership.
	clockHandOver = 5 * time.Second
)

// Newest bounds the timestamps of samples that clients send. Up to sure they may be stored; after never they are in the
// future whichever clock is right. In between the clocks of this node and of the cluster disagree: nothing may be stored,
// for one sample in the future makes all nodes refuse the present ones, and nothing refused for good, for it may be the
// present. Does not block.
func (n *Node) Newest() (sure, never time.Time) { return n.clock.newest() }

// OwnTimes bounds the timestamps of samples that this node makes itself, by its own clock: what it scrapes and records.
// The oldest is the zero time while nothing is wrong with the clock: targets may say of when their samples are. Does not
// block.
func (n *Node) OwnTimes() (oldest, newest time.Time) { return n.clock.own() }

// watchClock compares the clocks once a second, and acts on it.
func (n *Node) watchClock(ctx context.Context) {
	var handed time.Time
	for ctx.Err() == nil {
		if n.compareClocks(ctx) {
			n.clockChanged()
		}
		_, _, off := n.clock.now()
		if off && n.isLeader() && time.Since(handed) > clockHandOver && n.otherCanLead(ctx) {
			handed = time.Now()
			if err := n.handOver(ctx); err != nil && ctx.Err() == nil {
				n.logger.Warn("The leadership stays on a node whose clock is wrong, trying again", "err", err)
			}
		}
		wait := clockEvery
		if !n.clock.ready() {
			wait = clockHurry
		}
		sleep(ctx, wait)
	}
}

// compareClocks asks all other members and judges; it tells whether this node's clock has become right or wrong. The
// question goes the way of Raft's messages: where gossip's packets are lost, clocks count all the same, and a node that
// has just started need not wait for its turn to be probed.
func (n *Node) compareClocks(ctx context.Context) (changed bool) {
	ctx, cancel := context.WithTimeout(ctx, clockTimeout)
	defer cancel()
	servers := n.servers()
	var others []string
	for _, s := range servers {
		if string(s.ID) != n.id {
			others = append(others, string(s.ID))
		}
	}
	answered := make([]bool, len(others))
	var wg sync.WaitGroup
	for i, id := range others {
		wg.Go(func() { answered[i] = n.askClock(ctx, id) })
	}
	wg.Wait()
	answers := 1
	for _, yes := range answered {
		if yes {
			answers++
		}
	}
	changed = n.clock.judge(others)
	if len(servers) > 0 && (2*answers > len(servers) || time.Since(n.started) > clockPatience) {
		n.clock.setReady()
	}
	return changed
}

// askClock tells whether node id has answered.
func (n *Node) askClock(ctx context.Context, id string) bool {
	start := time.Now()
	var w whoami
	if err := n.client.callJSON(ctx, id, rpcWhoami, nil, &w); err != nil {
		return false
	}
	// One of an older version tells no time, and if this process was stopped meanwhile, nobody knows of when it is.
	if rtt := time.Since(start); w.Wall != 0 && rtt <= clockTimeout {
		n.clock.hear(id, w.Wall, w.Trusted, rtt)
	}
	return true
}

func (n *Node) clockChanged() {
	wall, trusted, off := n.clock.now()
	l := n.logger.With("clock", wall.UTC(), "by_the_others", trusted.UTC(), "offset", wall.Sub(trusted))
	if off {
		l.Error("The clock of this node is wrong: it is not ready, does not lead if another can, and scrapes nothing. Set it right, and see to it that NTP runs")
		return
	}
	l.Info("The clock of this node is right again, going on")
}

// otherCanLead tells whether there is a voter that is in a better state.
func (n *Node) otherCanLead(ctx context.Context) bool {
	for id, r := range n.reports(ctx, voters(n.servers())) {
		if id != n.id && r.unfit() == "" {
			return true
		}
	}
	return false
}

// ready tells whether the clock has been compared with those of a majority, or cannot be.
func (c *clock) ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.compared
}

func (c *clock) setReady() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.compared = true
}
