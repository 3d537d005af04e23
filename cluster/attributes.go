// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import "maps"

// AttributeConfigHash is a hash of a node's configuration files, which the status of the cluster shows.
const AttributeConfigHash = "config"

// Member is a live node of the cluster as gossip knows it.
type Member struct {
	ID string
	// Attributes are what the node has set with SetAttribute. Not to be changed.
	Attributes map[string]string
}

// SetAttribute tells the other nodes something about this one by gossip, within seconds. An empty value takes it
// back. Names and values share about 200 bytes.
func (n *Node) SetAttribute(name, value string) {
	g := n.gossip
	g.mu.Lock()
	attributes := maps.Clone(g.attributes)
	if attributes == nil {
		attributes = map[string]string{}
	}
	if value == "" {
		delete(attributes, name)
	} else {
		attributes[name] = value
	}
	g.attributes = attributes // keepMeta sees it
	g.mu.Unlock()
}

// attribute is what this node tells of itself.
func (n *Node) attribute(name string) string {
	n.gossip.mu.Lock()
	defer n.gossip.mu.Unlock()
	return n.gossip.attributes[name]
}

// Members returns the live members of the cluster by id, this node included. Nodes that gossip knows and the
// Raft configuration does not are left out.
func (n *Node) Members() []Member {
	belongs := map[string]bool{}
	for _, s := range n.servers() {
		belongs[string(s.ID)] = true
	}
	var out []Member
	for _, m := range n.gossip.members() {
		if belongs[m.ID] {
			out = append(out, Member{ID: m.ID, Attributes: m.Attributes})
		}
	}
	return out
}

// MembersChanged returns a channel that is closed when gossip learns something of a member after this call.
func (n *Node) MembersChanged() <-chan struct{} {
	n.gossip.mu.Lock()
	defer n.gossip.mu.Unlock()
	return n.gossip.moving
}
