// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const statusTimeout = time.Second

// Roles of a member.
const (
	RoleLeader      = "leader"
	RoleFollower    = "follower"
	RoleNonvoter    = "nonvoter"
	RoleUnreachable = "unreachable"
)

// NodeStatus is one member of the cluster, as it says itself; an unreachable one has only what the configuration and
// gossip know.
type NodeStatus struct {
	ID            string `json:"id"`
	Role          string `json:"role"`
	RaftAddress   string `json:"raft_address"`
	GossipAddress string `json:"gossip_address"`
	HTTPAddress   string `json:"http_address"`
	Version       string `json:"version"`
	AppliedIndex  uint64 `json:"applied_index"`
	CommitIndex   uint64 `json:"commit_index"`
	Lag           uint64 `json:"lag"` // entries behind the highest commit index of all answers
	Voter         bool   `json:"voter"`
	Alive         bool   `json:"alive"` // by gossip
	BlocksBytes   int64  `json:"blocks_bytes"`
	Level         uint32 `json:"level"` // of the log format that the node knows
	ConfigHash    string `json:"config_hash,omitempty"`
	Recovering    string `json:"recovering,omitempty"` // why the node has no vote
	Disk          string `json:"disk,omitempty"`       // "low" or "critical"
	// ClockOffset is how many seconds the node's clock is ahead of the other nodes'.
	ClockOffset float64 `json:"clock_offset_seconds"`
	Damaged     string  `json:"damaged,omitempty"` // what on the node's disk is not what was written
	Err         string  `json:"err,omitempty"`
	// CatchUp is there while the node fetches a snapshot of another one.
	CatchUp *CatchUpStatus `json:"catch_up,omitempty"`
	// Digest is the newest comparison of data that the node has heard of.
	Digest *DigestStatus `json:"digest,omitempty"`
}

// nodeReport is the answer to rpcStatus.
type nodeReport struct {
	Leader       bool           `json:"leader"`
	Term         uint64         `json:"term"`
	AppliedIndex uint64         `json:"applied_index"`
	CommitIndex  uint64         `json:"commit_index"`
	BlocksBytes  int64          `json:"blocks_bytes"`
	HTTPAddress  string         `json:"http_address"`
	Version      string         `json:"version"`
	Level        uint32         `json:"level"`
	ConfigHash   string         `json:"config_hash,omitempty"`
	LastIndex    uint64         `json:"last_index"` // of the log
	Voters       []string       `json:"voters,omitempty"`
	Recovering   string         `json:"recovering,omitempty"`
	Disk         string         `json:"disk,omitempty"`
	ClockOffset  float64        `json:"clock_offset_seconds"`
	ClockOff     bool           `json:"clock_off,omitempty"` // it is too much
	Damaged      string         `json:"damaged,omitempty"`
	Err          string         `json:"err,omitempty"` // why the node is broken
	CatchUp      *CatchUpStatus `json:"catch_up,omitempty"`
	Digest       *DigestStatus  `json:"digest,omitempty"`
}

func (n *Node) ownReport() nodeReport {
	wall, trusted, off := n.clock.now()
	applied, _ := n.fsm.Applied()
	r := nodeReport{
		Leader: n.isLeader(), Term: n.raft.CurrentTerm(), AppliedIndex: applied, CommitIndex: n.raft.CommitIndex(),
		BlocksBytes: n.fsm.BlocksSize(), HTTPAddress: n.cfg.HTTPAddress, Version: n.cfg.Version,
		CatchUp:   n.catchUp.status(),
		LastIndex: n.raft.LastIndex(), Voters: voters(n.servers()), Recovering: n.amnesia.reason(), Disk: n.disk.level().String(),
		ClockOffset: wall.Sub(trusted).Seconds(), ClockOff: off,
		Level: n.fsm.Level(), Digest: n.verdicts.status(), ConfigHash: n.attribute(AttributeConfigHash),
	}
	if err := n.fsm.Damage(); err != nil {
		r.Damaged = err.Error()
	}
	if n.fsmFailed() {
		r.Err = n.fsm.Err().Error()
	}
	return r
}

func (n *Node) handleStatus(context.Context, []byte) ([]byte, error) { return jsonReply(n.ownReport()) }

// report asks a member, or this node itself.
func (n *Node) report(ctx context.Context, id string) (nodeReport, error) {
	if id == n.id {
		return n.ownReport(), nil
	}
	var r nodeReport
	err := n.client.callJSON(ctx, id, rpcStatus, nil, &r)
	return r, err
}

// Nodes returns every member of the Raft configuration, in its order; before there is one, this node alone. Members
// are asked at once, for a second at most.
func (n *Node) Nodes(ctx context.Context) []NodeStatus {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	servers := n.servers()
	if len(servers) == 0 {
		servers = []raft.Server{{ID: raft.ServerID(n.id), Address: raft.ServerAddress(n.advertise), Suffrage: raft.Nonvoter}}
	}
	out := make([]NodeStatus, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { out[i] = n.nodeStatus(ctx, s) })
	}
	wg.Wait()
	var commit uint64
	for _, s := range out {
		commit = max(commit, s.CommitIndex)
	}
	for i := range out {
		if out[i].Role != RoleUnreachable {
			out[i].Lag = commit - min(commit, out[i].AppliedIndex)
		}
	}
	return out
}

func (n *Node) nodeStatus(ctx context.Context, s raft.Server) NodeStatus {
	_, address := splitTarget(s.Address)
	st := NodeStatus{ID: string(s.ID), RaftAddress: address, Voter: s.Suffrage == raft.Voter}
	if a := n.gossip.lastRaftAddress(st.ID); a != "" {
		st.RaftAddress = a
	}
	if m, ok := n.gossip.member(st.ID); ok {
		st.Alive, st.RaftAddress = true, m.RaftAddress
		st.GossipAddress, st.HTTPAddress, st.Version = m.GossipAddress, m.HTTPAddress, m.Version
		st.Level = m.knownLevel()
		st.ConfigHash = m.Attributes[AttributeConfigHash]
	}
	r, err := n.report(ctx, st.ID)
	if err != nil {
		st.Role, st.Err = RoleUnreachable, err.Error()
		return st
	}
	st.AppliedIndex, st.CommitIndex, st.BlocksBytes, st.Err = r.AppliedIndex, r.CommitIndex, r.BlocksBytes, r.Err
	st.HTTPAddress, st.Version, st.Level, st.ConfigHash = r.HTTPAddress, r.Version, max(r.Level, firstLevel), r.ConfigHash
	st.CatchUp, st.Digest, st.Recovering, st.Disk, st.Damaged = r.CatchUp, r.Digest, r.Recovering, r.Disk, r.Damaged
	st.ClockOffset = r.ClockOffset
	switch {
	case r.Leader:
		st.Role = RoleLeader
	case st.Voter:
		st.Role = RoleFollower
	default:
		st.Role = RoleNonvoter
	}
	return st
}
