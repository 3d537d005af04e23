// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"net"
	"strconv"
	"time"
)

const (
	joinAlone       = time.Second      // between attempts while no other node is known
	joinEvery       = 10 * time.Second // otherwise
	movedTime       = 15 * time.Second
	metaEvery       = 200 * time.Millisecond
	resolveTimeout  = 3 * time.Second
	defaultGossip   = 9191 // port of a peer that names none
	maxJoinPerRound = 64   // a name that resolves to a whole network must not keep us busy
)

// keepJoining joins the peers, and the members that were seen and are gone, for ever. memberlist forgets a member half
// a minute after it has lost it and never looks for it again (hashicorp/memberlist#222), so that two halves of a
// healed network would stay apart.
func (g *gossip) keepJoining(ctx context.Context) {
	g.node.loop(g.keepMeta)
	for ctx.Err() == nil {
		for _, addr := range g.missing(ctx) {
			if ctx.Err() != nil {
				return
			}
			if _, err := g.list.Join([]string{addr}); err != nil {
				g.metrics.joinFailures.Inc()
				if g.limit.allow("join " + addr) {
					g.logger.Warn("Cannot reach a gossip peer, trying again", "peer", addr, "err", err)
				}
			}
		}
		wait := joinEvery
		if len(g.members()) < 2 || g.hasMoved() {
			wait = joinAlone
		}
		sleep(ctx, wait)
	}
}

// hasMoved: the others still know this node under the address it had before. They let it in when they have noticed that
// nobody is there any more, and then soonest by being joined again.
func (g *gossip) hasMoved() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Since(g.moved) < movedTime
}

// keepMeta tells the others when what they should know of this node has changed.
func (g *gossip) keepMeta(ctx context.Context) {
	tick(ctx, metaEvery, func() {
		g.keepSeen()
		g.dropAdopted()
		b := encodeMeta(g.meta(), 512)
		g.mu.Lock()
		same := g.sent == string(b)
		g.mu.Unlock()
		if same {
			return
		}
		if err := g.list.UpdateNode(joinAlone); err != nil {
			g.logger.Debug("Gossip update not confirmed", "err", err)
		}
	})
}

// missing returns the addresses to join: all that the peers' names resolve to now, and where members of the Raft
// configuration were seen, without those that are alive (unless this node has moved).
func (g *gossip) missing(ctx context.Context) []string {
	want := make(map[string]bool)
	for _, p := range g.node.cfg.Peers {
		for _, a := range g.resolve(ctx, p) {
			want[a] = true
		}
	}
	servers := g.node.servers()
	g.mu.Lock()
	for _, s := range servers {
		if a, ok := g.seen[string(s.ID)]; ok {
			want[a.Gossip] = true
		}
	}
	moved := time.Since(g.moved) < movedTime
	for _, m := range g.alive {
		if moved {
			want[m.GossipAddress] = true
		} else {
			delete(want, m.GossipAddress)
		}
	}
	g.mu.Unlock()
	delete(want, g.address())
	var out []string
	for a := range want {
		if len(out) < maxJoinPerRound {
			out = append(out, a)
		}
	}
	return out
}

// resolve returns every address of a peer, e.g. of all pods behind a headless service.
func (g *gossip) resolve(ctx context.Context, peer string) []string {
	host, port, err := splitAddress(peer, defaultGossip)
	if err == nil && net.ParseIP(host) != nil {
		return []string{net.JoinHostPort(host, strconv.Itoa(port))}
	}
	var ips []string
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
		defer cancel()
		ips, err = net.DefaultResolver.LookupHost(ctx, host)
	}
	if err != nil {
		g.metrics.joinFailures.Inc()
		if g.limit.allow("resolve " + peer) {
			g.logger.Warn("Cannot resolve a gossip peer, trying again", "peer", peer, "err", err)
		}
		return nil
	}
	for i := range ips {
		ips[i] = net.JoinHostPort(ips[i], strconv.Itoa(port))
	}
	return ips
}
