// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// adoptedTime is how long a member is believed to have moved without memberlist's agreement.
const adoptedTime = time.Minute

// conflict is one node id under two addresses.
type conflict struct {
	known, other member
}

// NotifyConflict implements memberlist.ConflictDelegate. memberlist keeps the one known before; the other gets in when
// that one has been found dead, some seconds later.
func (d *gossipDelegate) NotifyConflict(existing, other *memberlist.Node) {
	a, errA := decodeMember(existing)
	b, errB := decodeMember(other)
	if errA != nil || errB != nil {
		return
	}
	if a.ID == d.node.id {
		d.mu.Lock()
		d.moved = time.Now()
		d.mu.Unlock()
	}
	select {
	case d.conflicts <- conflict{a, b}:
	default: // there will be more of the same
	}
}

// whoami is the answer to rpcWhoami.
type whoami struct {
	ID       string `json:"id"`
	Instance string `json:"instance"`
	// Wall and Trusted are its times in Unix milliseconds, see clock.tell.
	Wall    int64 `json:"wall,omitempty"`
	Trusted int64 `json:"trusted,omitempty"`
	// Leader is the node that leads, if this one is in contact with it.
	Leader string `json:"leader,omitempty"`
}

func (n *Node) handleWhoami(context.Context, []byte) ([]byte, error) {
	wall, trusted := n.clock.tell()
	return jsonReply(whoami{ID: n.id, Instance: n.instance, Wall: wall, Trusted: trusted, Leader: n.leaderInContact()})
}

// watchConflicts asks both addresses. When both answer, two live nodes have one id: a mistake that Raft cannot survive,
// for they would share a vote. When only the new one does, the node has come back under a new address, and it is
// taken at its word at once: memberlist needs some seconds to believe in a death, and Raft would talk to nobody.
func (g *gossip) watchConflicts(ctx context.Context) {
	for {
		var c conflict
		select {
		case <-ctx.Done():
			return
		case c = <-g.conflicts:
		}
		known, other := g.whoAre(ctx, c)
		switch {
		case other.ID != c.other.ID:
		case known.ID != c.known.ID:
			g.adopt(c.other)
		case known.Instance != other.Instance:
			g.metrics.idConflicts.Inc()
			if g.limit.allow("conflict " + other.ID) {
				g.logger.Error("Two live nodes have the same id; stop one of them and give it a data directory and an id of its own",
					"id", other.ID, "address", c.known.RaftAddress, "refused", c.other.RaftAddress)
			}
		}
	}
}

// whoAre asks both at once; one that does not answer is zero.
func (g *gossip) whoAre(ctx context.Context, c conflict) (known, other whoami) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	ask := func(addr string, w *whoami) {
		b, err := g.node.client.callAddress(ctx, addr, "*", rpcWhoami, nil)
		if err == nil {
			_ = json.Unmarshal(b, w) // garbage leaves no id
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { ask(c.known.RaftAddress, &known) })
	wg.Go(func() { ask(c.other.RaftAddress, &other) })
	wg.Wait()
	return known, other
}

// adopt believes that m has moved, until memberlist says so too or adoptedTime has passed.
func (g *gossip) adopt(m member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.ID == g.node.id || g.alive[m.ID].GossipAddress == m.GossipAddress {
		return
	}
	g.logger.Info("A node has come back under a new address", "id", m.ID, "old", g.alive[m.ID].RaftAddress, "new", m.RaftAddress)
	g.alive[m.ID], g.seen[m.ID], g.adopted[m.ID] = m, seenAt{m.GossipAddress, m.RaftAddress}, time.Now()
}

// dropAdopted forgets those that memberlist never let in.
func (g *gossip) dropAdopted() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, since := range g.adopted {
		if time.Since(since) > adoptedTime {
			delete(g.adopted, id)
			delete(g.alive, id)
		}
	}
}
