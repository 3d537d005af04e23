// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/fsm"
)

// Node is this process's part of the cluster. Goroutine-safe. Made by Start, ended by Shutdown.
type Node struct {
	cfg       Config
	id        string
	instance  string // random per start: tells a node from another one with its id
	advertise string // Raft and RPC address that the others dial
	logger    *slog.Logger
	metrics   *metrics
	fsm       *fsm.FSM
	machine   *raftFSM
	amnesia   *amnesia
	disk      *disk
	clock     *clock

	mux       *mux
	stores    *stores
	snapshots *SnapshotStore
	source    *source  // gives snapshots to others
	catchUp   *catchUp // takes them from others
	imports   *imports
	raft      *raft.Raft
	trans     transport
	book      *addressBook
	gossip    *gossip
	server    *rpcServer
	client    *rpcClient

	inflight *inflight
	reads    *batcher // leader's rounds
	asks     *batcher // follower's questions to the leader
	fresh    *freshness
	contact  *contact
	peers    atomic.Pointer[http.Handler] // see HandlePeers
	verdicts *verdicts
	started  time.Time

	transferring atomic.Bool   // a leadership transfer of ours is under way
	changing     sync.Mutex    // held by a change of the members, see removeHere
	draining     atomic.Bool   // StopServing was called
	stopped      chan struct{} // closed when proposals are refused
	dead         chan struct{} // closed when Raft has ended: its futures may never answer
	deadOnce     sync.Once
	fatalOnce    sync.Once
	raftOnce     sync.Once
	raftEnd      raft.Future // set by raftOnce
	stopOnce     sync.Once
	stopErr      error
	promise      promise

	snapshotMu sync.Mutex // one snapshot at a time

	lifeMu      sync.Mutex      // orders the start of a loop and the end of all
	ctx         context.Context // life of the loops
	cancel      context.CancelFunc
	wg          sync.WaitGroup
	persistStop context.CancelFunc // ends a snapshot that is being written

	leaderMu    sync.Mutex      // protects the following
	leaderMoved chan struct{}   // closed and replaced when the leader changes
	term        context.Context // of the newest term that this node leads or led, or nil
	termMoved   chan struct{}   // closed and replaced when term changes
}

// ID returns the node's id.
func (n *Node) ID() string { return n.id }

// Address returns the address that other nodes dial for Raft and RPC.
func (n *Node) Address() string { return n.advertise }

// GossipAddress returns the address that others may name as a peer.
func (n *Node) GossipAddress() string { return n.gossip.address() }

// Leader returns the id of the leader as this node knows it, at most an election timeout old.
func (n *Node) Leader() (id string, ok bool) {
	if n.raft.State() == raft.Shutdown {
		return "", false
	}
	_, lid := n.raft.LeaderWithID()
	return string(lid), lid != ""
}

func (n *Node) isLeader() bool { return n.raft.State() == raft.Leader }

func (n *Node) fsmFailed() bool { return n.machine.failed() }

// servers returns the members of the latest Raft configuration.
func (n *Node) servers() []raft.Server { return n.raft.GetConfiguration().Configuration().Servers }

// voters are the ids of those that vote.
func voters(servers []raft.Server) []string {
	var ids []string
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// Ready returns nil when this node may serve: it has once caught up with the commit index that the leader had when
// this node had started, it is in touch with a leader and with a majority of the voters, its state machine works, and
// it is not stopping. Does not block. The error wraps ErrNotReady and says which of them is missing. When it is only room
// on the disk, or the clock, it wraps ErrDiskFull or ErrClockOff too.
func (n *Node) Ready() error {
	switch {
	case n.draining.Load():
		return fmt.Errorf("%w: %w", ErrNotReady, ErrStopped)
	case n.fsmFailed():
		return fmt.Errorf("%w: %w: %w", ErrNotReady, ErrFSMFailed, n.fsm.Err())
	}
	age, known := n.fresh.age()
	if !known {
		applied, _ := n.fsm.Applied()
		return fmt.Errorf("%w: not caught up with the leader yet, applied index %d, commit index %d", ErrNotReady, applied, n.raft.CommitIndex())
	}
	if err := n.disk.err(); err != nil { // before its age: with too little room it grows
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if err := n.clock.err(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if !n.clock.ready() {
		return fmt.Errorf("%w: the clock has not been compared with those of the other nodes yet", ErrNotReady)
	}
	if age > n.cfg.MaxStaleness {
		return fmt.Errorf("%w: no confirmation from a leader for %s", ErrNotReady, age.Round(time.Millisecond))
	}
	if err := n.contact.err(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if heard, all := n.votersHeard(); heard <= all/2 {
		return fmt.Errorf("%w: in contact with %d of %d voters", ErrNotReady, heard, all)
	}
	return nil
}

// StopServing turns Ready into an error, so that load balancers go elsewhere; all else goes on.
func (n *Node) StopServing() { n.draining.Store(true) }

// fatal reports a state that only a new process can leave.
func (n *Node) fatal(err error) {
	n.fatalOnce.Do(func() { reportFatal(n.cfg, n.metrics, err) })
}

func reportFatal(cfg Config, m *metrics, err error) {
	m.fatal.Inc()
	cfg.Logger.Error("This node cannot go on", "err", err)
	go cfg.OnFatal(err) // not on the goroutine that reports: it may hold what the handler wants to stop
}

// loop runs fn until Shutdown, which waits for it. Does nothing once Shutdown has come that far.
func (n *Node) loop(fn func(ctx context.Context)) {
	n.lifeMu.Lock()
	defer n.lifeMu.Unlock()
	if n.ctx.Err() == nil {
		n.wg.Go(func() { fn(n.ctx) })
	}
}

// stopLoops ends the loops and waits for them.
func (n *Node) stopLoops() {
	n.lifeMu.Lock()
	n.cancel()
	n.lifeMu.Unlock()
	n.wg.Wait()
}

// tick calls fn every interval until ctx ends.
func tick(ctx context.Context, interval time.Duration, fn func()) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			fn()
		}
	}
}

// sleep waits for d, or less if ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
