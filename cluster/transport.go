// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/internal/plant"
)

const raftTimeout = 10 * time.Second

// transport is raft.NetworkTransport without its heartbeat fast path.
//
// Workaround for hashicorp/raft#695 (safety): a heartbeat with a newer term, handled on the transport's goroutine,
// changes term and state under the feet of the main loop; two nodes may then commit different entries at one
// index. Without a handler the transport sends heartbeats through the main loop.
// Cost: about 3 % fewer acknowledged writes while links are being cut; a follower that is busy restoring a snapshot or
// writing to a slow disk does not answer heartbeats meanwhile, so that its silence counts against the leader's lease.
// Test: TestTransportHasNoHeartbeatFastPath. May go when raft handles heartbeats under the main loop (PR #701).
type transport struct {
	*raft.NetworkTransport // embedded, not wrapped: what is not said here is its
	filter                 *rpcFilter
}

// Consumer implements raft.Transport.
func (t transport) Consumer() <-chan raft.RPC { return t.filter.out }

// RequestVote implements raft.Transport. A node without a vote does not ask for others': that of an amnesiac one would
// be its own, and could make it the leader of a cluster of two.
func (t transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if !t.filter.amnesia.mayStand() {
		*resp = raft.RequestVoteResponse{Term: args.Term}
		return nil
	}
	return t.NetworkTransport.RequestVote(id, target, args, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (t transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if !t.filter.amnesia.mayStand() {
		*resp = raft.RequestPreVoteResponse{Term: args.Term}
		return nil
	}
	return t.NetworkTransport.RequestPreVote(id, target, args, resp)
}

// Close implements raft.WithClose.
func (t transport) Close() error {
	err := t.NetworkTransport.Close()
	t.filter.close()
	return err
}

// SetHeartbeatHandler implements raft.Transport by doing nothing, see the type.
func (t transport) SetHeartbeatHandler(f func(raft.RPC)) {
	if plant.HeartbeatFastPath {
		t.NetworkTransport.SetHeartbeatHandler(f)
	}
}

// clusterMark stands before the id of the cluster in what EncodePeer returns. It is in no address.
const clusterMark = "#"

// EncodePeer implements raft.Transport. Voters remember by this string to whom they gave the vote of a term; with an
// address alone, a node that takes over another one's address could be given that one's vote a second time. Each message
// carries it as the address of its sender, so the id of the cluster is in it once that is known, see rpcFilter.
func (t transport) EncodePeer(id raft.ServerID, addr raft.ServerAddress) []byte {
	return t.marked([]byte(string(id) + "@" + string(addr)))
}

// marked returns peer with the id of this node's cluster, once that is known.
func (t transport) marked(peer []byte) []byte {
	peer, _, _ = bytes.Cut(peer, []byte(clusterMark))
	if c := t.filter.cluster(); c != "" {
		peer = append(slices.Clip(peer), clusterMark+c...)
	}
	return peer
}

// AppendEntries implements raft.Transport. Raft makes the header of its heartbeats once a term, in the first one before
// the cluster has its id.
func (t transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	req := *args
	req.Addr = t.marked(args.Addr)
	return t.NetworkTransport.AppendEntries(id, target, &req, resp)
}

// newTransport returns one whose filter is still to be set.
func newTransport(x *mux, advertise string, book *addressBook, dial dialFunc, logger hclog.Logger) transport {
	return transport{NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: book,
		Logger:                logger,
		Stream:                &streamLayer{subListener: x.raft, advertise: stringAddr(advertise), dial: dial},
		MaxPool:               4,
		// Workaround for hashicorp/raft#612 (liveness): with pipelining, one failed StoreLogs on a follower ends
		// replication to it for good while heartbeats go on, and Shutdown of the leader hangs. 1 = no pipelining.
		// Cost: none on a LAN below 0.1 ms, up to a third of the throughput at 1 ms. May go when the issue is closed.
		MaxRPCsInFlight: 1,
		Timeout:         raftTimeout,
	})}
}

// streamLayer gives Raft its half of the mux.
type streamLayer struct {
	*subListener
	advertise net.Addr
	dial      dialFunc
}

// Addr implements net.Listener; Raft tells it to the others.
func (s *streamLayer) Addr() net.Addr { return s.advertise }

// Dial implements raft.StreamLayer. The target carries the id of the node that is meant.
func (s *streamLayer) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, addr := splitTarget(target)
	if id == "" || len(id) > 255 {
		return nil, errors.New("target without a node id")
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(timeout, dialTimeout))
	defer cancel()
	c, err := s.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	_ = c.SetWriteDeadline(time.Now().Add(timeout))
	if _, err := c.Write(append([]byte{protoRaft, byte(len(id))}, id...)); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, c.SetWriteDeadline(time.Time{})
}

// stringAddr is a net.Addr that may hold a host name.
type stringAddr string

// Network implements net.Addr.
func (stringAddr) Network() string { return "tcp" }

// String implements net.Addr.
func (a stringAddr) String() string { return string(a) }
