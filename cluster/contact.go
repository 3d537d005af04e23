// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	contactEvery = 250 * time.Millisecond
	contactHurry = 50 * time.Millisecond // while there is none
	// contactLost is how old the newest answer of a voter may be. With a load balancer that asks for readiness four
	// times a second, a node that is cut off is left out within 2 s.
	contactLost = time.Second
	// A leader sends something every 100 to 200 ms. A node without any for leaderSilent may be cut off from it; another
	// one, with some not older than leaderRecent, is not. When the leader has died, both are silent by then.
	leaderSilent = 750 * time.Millisecond
	leaderRecent = 400 * time.Millisecond
)

// contact knows when the other voters have last answered, and whether they hear from a leader. Raft tells whether it
// knows a leader, which no node does during an election; that a node is cut off from the others, or from the leader
// alone, while those go on shows in this alone.
type contact struct {
	mu    sync.Mutex           // protects the following
	heard map[string]heardFrom // by node id
	asked map[string]bool      // by node id: a call is under way
	cut   string               // the leader that others hear and this node does not
	since time.Time            // of cut
}

// heardFrom is the newest answer of a node.
type heardFrom struct {
	start  time.Time // of the call
	leader string    // that the node is in contact with
}

func newContact() *contact {
	return &contact{heard: map[string]heardFrom{}, asked: map[string]bool{}}
}

// ask does one call to a node at a time; call tells whether there was an answer, and which leader that names.
func (c *contact) ask(id string, call func() (leader string, answered bool)) {
	if !c.begin(id) {
		return
	}
	start := time.Now()
	leader, answered := call()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.asked, id)
	if answered {
		c.heard[id] = heardFrom{start, leader}
	}
}

func (c *contact) begin(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked[id] {
		return false
	}
	c.asked[id] = true
	return true
}

func (c *contact) fresh(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.heard[id].start) <= contactLost
}

// votersHeard counts the voters that answer, this node included if it is one, and all.
func (n *Node) votersHeard() (heard, all int) {
	ids := voters(n.servers())
	for _, id := range ids {
		if id == n.id || n.contact.fresh(id) {
			heard++
		}
	}
	return heard, len(ids)
}

// leaderInContact is the node that leads, "" if this one has not heard from it just now.
func (n *Node) leaderInContact() string {
	if n.isLeader() {
		return n.id
	}
	if time.Since(n.raft.LastContact()) > leaderRecent {
		return ""
	}
	id, _ := n.Leader()
	return id
}

// judge notes the leader that this node does not hear, while others do, and tells whether that has changed.
func (c *contact) judge(silent bool) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	leader := ""
	if silent {
		for _, h := range c.heard {
			if h.leader != "" && time.Since(h.start) <= contactLost {
				leader = h.leader
			}
		}
	}
	changed = leader != c.cut
	if changed {
		c.cut, c.since = leader, time.Now()
	}
	return changed
}

// lost is the leader that others hear and this node does not, "" if there is none.
func (c *contact) lost() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

// err is nil unless this node is cut off from a leader that others hear. It waits for a second answer to that effect: at
// the end of an election the others may just have been faster.
func (c *contact) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut == "" || time.Since(c.since) < contactEvery {
		return nil
	}
	return fmt.Errorf("no contact with the leader %s, which other nodes reach", c.cut)
}

// watchContact asks the other voters again and again, and tells when a majority is lost or back.
func (n *Node) watchContact(ctx context.Context) {
	var calls sync.WaitGroup
	defer calls.Wait()
	for lost := true; ctx.Err() == nil; {
		for _, id := range voters(n.servers()) {
			if id != n.id {
				calls.Go(func() { n.contact.ask(id, func() (string, bool) { return n.leaderOf(ctx, id) }) })
			}
		}
		if n.contact.judge(!n.isLeader() && time.Since(n.raft.LastContact()) > leaderSilent) {
			if leader := n.contact.lost(); leader != "" {
				n.logger.Warn("No contact with the leader, which other nodes hear", "leader", leader)
			} else {
				n.logger.Info("No longer the only one without contact with a leader")
			}
		}
		heard, all := n.votersHeard()
		switch now := heard <= all/2; {
		case now && !lost:
			n.logger.Warn("Lost contact with the majority of the voters", "voters", all, "heard", heard)
		case !now && lost:
			n.logger.Info("In contact with the majority of the voters", "voters", all, "heard", heard)
		}
		lost = heard <= all/2
		if lost {
			sleep(ctx, contactHurry)
		} else {
			sleep(ctx, contactEvery)
		}
	}
}

// leaderOf asks a node for the leader that it is in contact with; answered tells whether the node is there.
func (n *Node) leaderOf(ctx context.Context, id string) (leader string, answered bool) {
	ctx, cancel := context.WithTimeout(ctx, contactLost)
	defer cancel()
	var w whoami
	err := n.client.callJSON(ctx, id, rpcWhoami, nil, &w)
	return w.Leader, err == nil || errors.Is(err, errRemote)
}
