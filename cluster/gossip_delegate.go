// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// gossipDelegate is the side of gossip that memberlist calls, with its lock held: nothing here blocks or calls it back.
type gossipDelegate gossip

// NodeMeta implements memberlist.Delegate.
func (d *gossipDelegate) NodeMeta(limit int) []byte {
	b := encodeMeta(d.node.meta(), limit)
	d.mu.Lock()
	d.sent = string(b)
	d.mu.Unlock()
	return b
}

// NotifyMsg implements memberlist.Delegate; there are no user messages.
func (*gossipDelegate) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (*gossipDelegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (*gossipDelegate) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (*gossipDelegate) MergeRemoteState([]byte, bool) {}

// NotifyAlive implements memberlist.AliveDelegate: it refuses members of another cluster.
func (d *gossipDelegate) NotifyAlive(node *memberlist.Node) error {
	m, err := decodeMember(node)
	if err != nil {
		return err
	}
	ours := d.node.clusterID()
	if ours == "" || m.ClusterID == "" || ours == m.ClusterID {
		return nil
	}
	d.metrics.foreign.Inc()
	if d.limit.allow("foreign " + m.ID) {
		d.logger.Error("Refused a member of another cluster; check --cluster.peer on both sides",
			"member", m.ID, "address", m.GossipAddress, "its_cluster", m.ClusterID, "our_cluster", ours)
	}
	return fmt.Errorf("member of cluster %s", m.ClusterID)
}

// NotifyJoin implements memberlist.EventDelegate.
func (d *gossipDelegate) NotifyJoin(node *memberlist.Node) { d.put(node) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d *gossipDelegate) NotifyUpdate(node *memberlist.Node) { d.put(node) }

// NotifyLeave implements memberlist.EventDelegate: the node is dead or has left.
func (d *gossipDelegate) NotifyLeave(node *memberlist.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.alive, node.Name)
}

func (d *gossipDelegate) put(node *memberlist.Node) {
	m, err := decodeMember(node)
	if err != nil {
		return // NotifyAlive has refused it
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.alive[m.ID] = m
	d.seen[m.ID] = m.GossipAddress
}

func decodeMember(node *memberlist.Node) (member, error) {
	m := member{ID: node.Name, GossipAddress: net.JoinHostPort(node.Addr.String(), strconv.Itoa(int(node.Port)))}
	if err := json.Unmarshal(node.Meta, &m.memberMeta); err != nil || m.RaftAddress == "" {
		return member{}, errors.New("not a member of this kind of cluster")
	}
	return m, nil
}

// conflict is one node id under two addresses.
type conflict struct {
	id   string
	raft [2]string // the one known before, the other
}

// NotifyConflict implements memberlist.ConflictDelegate. memberlist keeps the one known before; the other gets in when
// that one is dead.
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
	case d.conflicts <- conflict{a.ID, [2]string{a.RaftAddress, b.RaftAddress}}:
	default: // there will be more of the same
	}
}

// whoami is the answer to rpcWhoami.
type whoami struct {
	ID       string `json:"id"`
	Instance string `json:"instance"`
}

func (n *Node) handleWhoami(context.Context, []byte) ([]byte, error) {
	return jsonReply(whoami{n.id, n.instance})
}

// watchConflicts tells a node that came back under a new address before its death was noticed (harmless) from two
// live nodes with one id (a mistake that Raft cannot survive: they would share a vote), by asking both addresses.
func (g *gossip) watchConflicts(ctx context.Context) {
	for {
		var c conflict
		select {
		case <-ctx.Done():
			return
		case c = <-g.conflicts:
		}
		if !g.bothAlive(ctx, c) {
			continue
		}
		g.metrics.idConflicts.Inc()
		if g.limit.allow("conflict " + c.id) {
			g.logger.Error("Two live nodes have the same id; stop one of them and give it a data directory and an id of its own",
				"id", c.id, "address", c.raft[0], "refused", c.raft[1])
		}
	}
}

func (g *gossip) bothAlive(ctx context.Context, c conflict) bool {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var who [2]whoami
	for i, addr := range c.raft {
		b, err := g.node.client.callAddress(ctx, addr, "*", rpcWhoami, nil)
		if err != nil || json.Unmarshal(b, &who[i]) != nil || who[i].ID != c.id {
			return false
		}
	}
	return who[0].Instance != who[1].Instance
}
