// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	bootstrapEvery = 200 * time.Millisecond
	promiseTime    = 10 * time.Second
	waitingLog     = 10 * time.Second
)

// hasState reports whether this node has ever been part of a cluster. Such a node never bootstraps.
func (n *Node) hasState() bool {
	return len(n.servers()) > 0 || n.raft.LastIndex() > 0 || n.raft.CurrentTerm() > 0
}

// bootstrap forms a new cluster, once, or waits until this node has been added to one.
//
// The first N = BootstrapExpect nodes that see each other and have no state form it: the lowest id asks the others
// for a promise and, when it has all, writes the first configuration with all of them as voters. A node promises one
// at a time. Without promises two groups could form, when more than N nodes start and see different parts of each
// other.
func (n *Node) bootstrap(ctx context.Context) {
	var logged time.Time
	for ctx.Err() == nil && !n.hasState() {
		if group := n.bootstrapGroup(); group != nil {
			if err := n.form(ctx, group); err != nil {
				n.logger.Info("Cluster not formed yet", "err", err)
			}
		} else if time.Since(logged) > waitingLog {
			logged = time.Now()
			n.logWaiting()
		}
		sleep(ctx, bootstrapEvery)
	}
	n.electAtOnce(ctx)
}

func (n *Node) logWaiting() {
	if n.cfg.BootstrapExpect == 1 {
		n.logger.Info("Waiting to be added to the cluster of the peers (bootstrap-expect is 1 and peers are given)", "peers", n.cfg.Peers)
		return
	}
	ids := []string{}
	for _, m := range n.gossip.members() {
		ids = append(ids, m.ID)
	}
	n.logger.Info("Waiting for the nodes of a new cluster, or to be added to an existing one",
		"bootstrap_expect", n.cfg.BootstrapExpect, "seen", ids)
}

// bootstrapGroup returns the members of the cluster that this node should form now, or nil.
func (n *Node) bootstrapGroup() []member {
	expect := n.cfg.BootstrapExpect
	if expect == 1 {
		if len(n.cfg.Peers) > 0 {
			return nil // with a cluster of its own it could never join theirs
		}
		return []member{{ID: n.id, memberMeta: n.gossip.meta()}}
	}
	var group []member // by id
	for _, m := range n.gossip.members() {
		if m.HasState || m.ClusterID != "" {
			return nil // there is a cluster already; its leader adds this node
		}
		if m.Expect == expect {
			group = append(group, m)
		}
	}
	if len(group) < expect || group[0].ID != n.id {
		return nil
	}
	return group[:expect]
}

// form collects the promises and bootstraps.
func (n *Node) form(ctx context.Context, group []member) error {
	req := promiseRequest{From: n.id, Expect: n.cfg.BootstrapExpect}
	conf := raft.Configuration{}
	for _, m := range group {
		req.Group = append(req.Group, m.ID)
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.RaftAddress)})
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := n.collect(ctx, req); err != nil {
		return err
	}
	// All of them are new and agree. Only now may they vote: one of them alone may be a wiped voter of a cluster whose
	// other nodes are down, see amnesia.go.
	req.Form = true
	if err := n.collect(ctx, req); err != nil {
		return err
	}
	n.logger.Info("Forming a new cluster", "nodes", req.Group)
	if err := n.await(ctx, n.raft.BootstrapCluster(conf)); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// collect asks all of the group for a promise.
func (n *Node) collect(ctx context.Context, req promiseRequest) error {
	for _, id := range req.Group {
		if id == n.id {
			if err := n.give(req); err != nil {
				return err
			}
			continue
		}
		if _, err := n.client.call(ctx, id, rpcPromise, req.encode()); err != nil {
			return err
		}
	}
	return nil
}

// promiseRequest asks a node to become part of a new cluster and of no other.
type promiseRequest struct {
	From   string   `json:"from"`
	Expect int      `json:"expect"`
	Group  []string `json:"group"`
	// Form tells that all of the group have promised.
	Form bool `json:"form,omitempty"`
}

func (r promiseRequest) encode() []byte {
	b, _ := json.Marshal(r) // strings and an integer
	return b
}

// promise is the one that this node has given.
type promise struct {
	mu    sync.Mutex // protects the following
	to    string
	until time.Time
}

// give promises, or says why not.
func (n *Node) give(r promiseRequest) error {
	p := &n.promise
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case n.hasState():
		return fmt.Errorf("node %s has state", n.id)
	case r.Expect != n.cfg.BootstrapExpect:
		return fmt.Errorf("node %s expects %d nodes, not %d", n.id, n.cfg.BootstrapExpect, r.Expect)
	case !slices.Contains(r.Group, n.id):
		return fmt.Errorf("node %s is not one of the group", n.id)
	case p.to != "" && p.to != r.From && time.Now().Before(p.until):
		return fmt.Errorf("node %s has promised itself to %s", n.id, p.to)
	}
	p.to, p.until = r.From, time.Now().Add(promiseTime)
	if r.Form {
		return n.amnesia.form(r.Group) // durable before it is answered
	}
	return nil
}

func (n *Node) handlePromise(_ context.Context, body []byte) ([]byte, error) {
	var r promiseRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	return nil, n.give(r)
}

// electAtOnce lets the only voter, or the node that has just formed a cluster, stand for election without waiting out
// a heartbeat timeout: nobody else could be the leader. It sends itself the message that ends a leadership transfer.
// Shorter timeouts would do the same, but Raft cannot lengthen the leader's lease again when members are added.
func (n *Node) electAtOnce(ctx context.Context) {
	ids := voters(n.servers())
	fresh := n.raft.CurrentTerm() <= 1 && len(ids) > 0 && slices.Min(ids) == n.id // has just formed it
	if ctx.Err() != nil || n.raft.State() != raft.Follower || !fresh && !slices.Equal(ids, []string{n.id}) {
		return
	}
	req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.id), Addr: []byte(n.advertise),
	}}
	if err := n.trans.TimeoutNow(raft.ServerID(n.id), raft.ServerAddress(n.advertise), req, &raft.TimeoutNowResponse{}); err != nil {
		n.logger.Debug("No immediate election, waiting for the timeout", "err", err)
	}
}
