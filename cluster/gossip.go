// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// member is what gossip knows of a live node.
type member struct {
	ID            string
	GossipAddress string
	memberMeta
}

// memberMeta travels with memberlist's alive messages, as JSON of at most 512 bytes.
type memberMeta struct {
	RaftAddress string `json:"r"`
	HTTPAddress string `json:"h,omitempty"`
	Version     string `json:"v,omitempty"`
	// ClusterID is "" until the node has learned it. Clusters are kept apart by it here and not by memberlist's
	// Label: a label is needed before the first packet, and a cluster draws its id after its first election.
	ClusterID string `json:"c,omitempty"`
	Expect    int    `json:"e,omitempty"`
	HasState  bool   `json:"s,omitempty"`
	// Level is the newest level of the log format that the node knows, see level.go.
	Level uint32 `json:"l,omitempty"`
	// Attributes are the layer above's, see SetAttribute.
	Attributes map[string]string `json:"a,omitempty"`
}

// gossip finds the other nodes and says who is alive. It decides nothing.
type gossip struct {
	node      *Node
	logger    *slog.Logger
	metrics   *metrics
	limit     logLimiter
	list      *memberlist.Memberlist
	addr      string
	conflicts chan conflict
	closeOnce sync.Once
	closeErr  error

	mu      sync.Mutex           // protects the following; memberlist holds its own lock when it calls us
	alive   map[string]member    // by id
	seen    map[string]seenAt    // by id: where it was last, also of those that are gone
	sent    string               // meta that memberlist has
	adopted map[string]time.Time // members believed to have moved, see adopt
	moved   time.Time            // when another node last held this node's id for one at another address

	attributes map[string]string // replaced, never changed
	moving     chan struct{}     // closed and replaced when alive changes

	written map[string]seenAt // what seenFile holds; of keepMeta's goroutine
}

func startGossip(n *Node) (*gossip, error) {
	g := &gossip{
		node: n, logger: n.logger, metrics: n.metrics, conflicts: make(chan conflict, 8),
		alive: make(map[string]member), adopted: make(map[string]time.Time),
		moving: make(chan struct{}),
	}
	g.loadSeen()
	host, port, err := splitAddress(n.cfg.GossipListenAddress, 0)
	if err != nil {
		return nil, fmt.Errorf("gossip address: %w", err)
	}
	c := memberlist.DefaultLANConfig()
	c.Name = n.id
	c.BindAddr, c.BindPort = host, port
	if c.BindAddr == "" {
		c.BindAddr = "0.0.0.0"
	}
	c.AdvertisePort = port
	c.TCPTimeout = 3 * time.Second
	c.PushPullInterval = 10 * time.Second
	// A node that died takes its name back under its new address as soon as the others have noticed its death;
	// the default, never, would keep a rescheduled container out.
	c.DeadNodeReclaimTime = time.Second
	c.Delegate, c.Events, c.Alive, c.Conflict = (*gossipDelegate)(g), (*gossipDelegate)(g), (*gossipDelegate)(g), (*gossipDelegate)(g)
	c.Logger = newMemberlistLog(n.logger)
	if c.AdvertiseAddr, c.AdvertisePort, err = g.advertise(host, port); err != nil {
		return nil, err
	}
	if err := n.cfg.hooks.gossip(c); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	if g.list, err = memberlist.Create(c); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	g.addr = g.list.LocalNode().Address() // memberlist changes that node later, without a lock that we could take
	return g, nil
}

// advertise resolves the advertised address: memberlist takes IP addresses only. Port 0 means the bound one.
func (g *gossip) advertise(host string, port int) (string, int, error) {
	given := g.node.cfg.GossipAdvertiseAddress
	if given == "" {
		// Follow the Raft address, which has been worked out already.
		if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
			return "", port, nil
		}
		raftHost, _, err := net.SplitHostPort(g.node.advertise)
		if err != nil {
			return "", 0, err
		}
		given = net.JoinHostPort(raftHost, strconv.Itoa(port))
	}
	ahost, aport, err := splitAddress(given, port)
	if err != nil {
		return "", 0, fmt.Errorf("gossip advertise address: %w", err)
	}
	ips, err := net.LookupIP(ahost)
	if err != nil {
		return "", 0, fmt.Errorf("gossip advertise address: %w", err)
	}
	return ips[0].String(), aport, nil
}

// splitAddress splits host:port; without a port it takes def.
func splitAddress(addr string, def int) (string, int, error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		if ae := (*net.AddrError)(nil); errors.As(err, &ae) && ae.Err == "missing port in address" {
			return addr, def, nil
		}
		return "", 0, err
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port of %q: %w", addr, err)
	}
	if port == 0 {
		return host, def, nil
	}
	return host, int(port), nil
}

// address is where others can join this node.
func (g *gossip) address() string { return g.addr }

// members returns the live ones, this node included, by id.
func (g *gossip) members() []member {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]member, 0, len(g.alive))
	for _, id := range slices.Sorted(maps.Keys(g.alive)) {
		out = append(out, g.alive[id])
	}
	return out
}

// member returns the live member id.
func (g *gossip) member(id string) (member, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, ok := g.alive[id]
	return m, ok
}

// lastRaftAddress is where node id was when it was last seen, perhaps by an earlier process; "" if never.
func (g *gossip) lastRaftAddress(id string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen[id].Raft
}

// close tells the others that this node leaves, for at most leave, and ends gossip.
func (g *gossip) close(leave time.Duration) error {
	g.closeOnce.Do(func() {
		if leave > 0 {
			// When all nodes stop at once nobody is there to hear it, which is no failure of this one.
			if err := g.list.Leave(leave); err != nil {
				g.logger.Info("Left without an answer; the others will notice by themselves", "err", err)
			}
		}
		g.closeErr = g.list.Shutdown()
	})
	return g.closeErr
}

// meta is this node's, now.
func (g *gossip) meta() memberMeta {
	g.mu.Lock()
	attributes := g.attributes
	g.mu.Unlock()
	n := g.node
	return memberMeta{
		Attributes:  attributes,
		RaftAddress: n.advertise, HTTPAddress: n.cfg.HTTPAddress, Version: n.cfg.Version,
		ClusterID: n.clusterID(), Expect: n.cfg.BootstrapExpect, HasState: n.hasState(), Level: n.fsm.Level(),
	}
}

// encodeMeta fits m into limit bytes; the version is for show and goes first.
func encodeMeta(m memberMeta, limit int) []byte {
	for _, drop := range []func(){func() {}, func() { m.Version = "" }, func() { m.HTTPAddress = "" }} {
		drop()
		if b, err := json.Marshal(m); err == nil && len(b) <= limit {
			return b
		}
	}
	return nil
}
