// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// holdTime is how long a leader's message waits for this node to learn from which term on it may take any.
const holdTime = 500 * time.Millisecond

var (
	errAmnesiac = errors.New("this node has lost its memory and does not take part yet")
	errNoRoom   = errors.New("this node's disk is full and it does not take entries")
)

// rpcFilter stands between the transport and Raft. It answers itself what comes from another cluster, and what an
// amnesiac node, or one whose disk is full, must not do.
type rpcFilter struct {
	amnesia *amnesia
	disk    *disk
	term    func() uint64 // Raft's
	cluster func() string // id of this node's cluster, "" while it is not known
	in      <-chan raft.RPC
	out     chan raft.RPC
	stop    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
}

func newRPCFilter(in <-chan raft.RPC, a *amnesia, d *disk, term func() uint64, cluster func() string) *rpcFilter {
	f := &rpcFilter{amnesia: a, disk: d, term: term, cluster: cluster, in: in, out: make(chan raft.RPC), stop: make(chan struct{})}
	f.wg.Go(f.run)
	return f
}

func (f *rpcFilter) run() {
	for {
		select {
		case <-f.stop:
			return
		case rpc := <-f.in:
			f.take(rpc)
		}
	}
}

// take passes rpc on, or answers it. Whoever sent it waits for the answer before it sends another on that connection,
// so that no more goroutines are made here than there are connections.
func (f *rpcFilter) take(rpc raft.RPC) {
	resp, err, hold := f.judge(rpc)
	switch {
	case hold:
		f.wg.Go(func() {
			select {
			case <-f.stop:
			case <-f.amnesia.learnt:
			case <-time.After(holdTime):
			}
			if resp, err, hold := f.judge(rpc); hold {
				f.refuse(rpc, nil, errAmnesiac)
			} else if resp != nil || err != nil {
				f.refuse(rpc, resp, err)
			} else {
				f.pass(rpc)
			}
		})
	case resp != nil || err != nil:
		if rpc.Reader == nil {
			f.refuse(rpc, resp, err)
			return
		}
		f.wg.Go(func() { f.refuse(rpc, resp, err) })
	default:
		f.pass(rpc)
	}
}

func (f *rpcFilter) pass(rpc raft.RPC) {
	select {
	case f.out <- rpc:
	case <-f.stop:
	}
}

// refuse answers. What follows a request on its connection is taken off first, or the next request would be read from
// the middle of it; the transport ends the reading when it is closed.
func (f *rpcFilter) refuse(rpc raft.RPC, resp any, err error) {
	if rpc.Reader != nil {
		_, _ = io.Copy(io.Discard, rpc.Reader) // a broken connection is found by the transport
	}
	rpc.Respond(resp, err)
}

// judge returns an answer, or that the request is to be held, or nothing if Raft shall have it.
func (f *rpcFilter) judge(rpc raft.RPC) (resp any, err error, hold bool) {
	if err := f.foreign(rpc); err != nil {
		return nil, err, false
	}
	switch c := rpc.Command.(type) {
	case *raft.RequestVoteRequest:
		if !f.amnesia.mayVote(requestFrom(c), c.Term) {
			return &raft.RequestVoteResponse{RPCHeader: header(), Term: f.term()}, nil, false
		}
	case *raft.RequestPreVoteRequest:
		if !f.amnesia.mayVote(requestFrom(c), c.Term) {
			return &raft.RequestPreVoteResponse{RPCHeader: header(), Term: f.term()}, nil, false
		}
	case *raft.TimeoutNowRequest:
		if !f.amnesia.mayStand() {
			return nil, errAmnesiac, false
		}
	case *raft.AppendEntriesRequest:
		ok, wait, stale := f.amnesia.mayFollow(requestFrom(c), c.Term)
		switch {
		case wait:
			return nil, nil, true
		case !ok:
			return &raft.AppendEntriesResponse{RPCHeader: header(), Term: stale}, nil, false
		case len(c.Entries) > 0 && f.disk.refusesEntries():
			return nil, errNoRoom, false
		}
	case *raft.InstallSnapshotRequest:
		ok, wait, stale := f.amnesia.mayFollow(requestFrom(c), c.Term)
		switch {
		case wait:
			return nil, errAmnesiac, false
		case !ok:
			return &raft.InstallSnapshotResponse{RPCHeader: header(), Term: stale}, nil, false
		case f.disk.level() == diskCritical: // else the fetcher knows what fits; what is here already costs no room
			return nil, errNoRoom, false
		}
	}
	return nil, nil, false
}

// foreign returns an error for what a node of another cluster has sent, whose data directory has been exchanged with
// one of this cluster, or whose id and address this node has. Raft itself would take its log and its terms.
func (f *rpcFilter) foreign(rpc raft.RPC) error {
	c, ok := rpc.Command.(raft.WithRPCHeader)
	if !ok {
		return nil
	}
	_, theirs, _ := bytes.Cut(c.GetRPCHeader().Addr, []byte(clusterMark))
	return sameCluster(string(theirs), f.cluster())
}

// header is that of all answers.
func header() raft.RPCHeader { return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax} }

// close ends the filter and waits for it. The transport must be closed before: it reads for refuse.
func (f *rpcFilter) close() {
	f.once.Do(func() { close(f.stop) })
	f.wg.Wait()
}
