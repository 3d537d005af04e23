// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/hashicorp/memberlist"
)

// gossipDelegate is the side of gossip that memberlist calls, with its lock held: nothing here blocks or calls it back.
type gossipDelegate gossip

// NodeMeta implements memberlist.Delegate.
func (d *gossipDelegate) NodeMeta(limit int) []byte {
	b := encodeMeta((*gossip)(d).meta(), limit)
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
	if d.alive[node.Name].GossipAddress == gossipAddress(node) { // else it lives on elsewhere, see adopt
		delete(d.alive, node.Name)
		d.tellLocked()
	}
}

func (d *gossipDelegate) put(node *memberlist.Node) {
	m, err := decodeMember(node)
	if err != nil {
		return // NotifyAlive has refused it
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.adopted, m.ID)
	d.alive[m.ID] = m
	d.seen[m.ID] = seenAt{m.GossipAddress, m.RaftAddress}
	d.tellLocked()
}

// tellLocked wakes those who wait for a change of the members.
func (d *gossipDelegate) tellLocked() {
	close(d.moving)
	d.moving = make(chan struct{})
}

func decodeMember(node *memberlist.Node) (member, error) {
	m := member{ID: node.Name, GossipAddress: gossipAddress(node)}
	if err := json.Unmarshal(node.Meta, &m.memberMeta); err != nil || m.RaftAddress == "" {
		return member{}, errors.New("not a member of this kind of cluster")
	}
	return m, nil
}

func gossipAddress(node *memberlist.Node) string {
	return net.JoinHostPort(node.Addr.String(), strconv.Itoa(int(node.Port)))
}
