// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	contactEvery = 250 * time.Millisecond
	contactHurry = 50 * time.Millisecond // while there is none
	// contactLost is how old the newest answer of a voter may be. With a load balancer that asks for readiness four
	// times a second, a node that is cut off is left out within 2 s.
	contactLost = time.Second
)

// contact knows when the other voters have last answered. Raft tells whether it knows a leader, which no node does
// during an election; that a node is cut off from the others while those go on shows in this alone.
type contact struct {
	mu    sync.Mutex           // protects the following
	heard map[string]time.Time // by node id: start of the newest call that was answered
	asked map[string]bool      // by node id: a call is under way
}

func newContact() *contact {
	return &contact{heard: map[string]time.Time{}, asked: map[string]bool{}}
}

// ask does one call to a node at a time; call tells whether there was an answer.
func (c *contact) ask(id string, call func() bool) {
	if !c.begin(id) {
		return
	}
	start := time.Now()
	answered := call()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.asked, id)
	if answered {
		c.heard[id] = start
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
	return time.Since(c.heard[id]) <= contactLost
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

// watchContact asks the other voters again and again, and tells when a majority is lost or back.
func (n *Node) watchContact(ctx context.Context) {
	var calls sync.WaitGroup
	defer calls.Wait()
	for lost := true; ctx.Err() == nil; {
		for _, id := range voters(n.servers()) {
			if id != n.id {
				calls.Go(func() { n.contact.ask(id, func() bool { return n.answers(ctx, id) }) })
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

// answers tells whether a node is there. One that has no vote just now says so by an error.
func (n *Node) answers(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, contactLost)
	defer cancel()
	_, err := n.client.call(ctx, id, rpcTerm, nil)
	return err == nil || errors.Is(err, errRemote)
}
