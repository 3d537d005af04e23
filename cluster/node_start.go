// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

// Start joins the cluster, or begins to look for it. f has its state from s.Restore, and only Raft may apply to it
// from now on. Start returns as soon as this node listens; Ready tells when it may serve. The caller keeps f and
// closes it after Shutdown.
func Start(cfg Config, f *fsm.FSM, s *SnapshotStore) (_ *Node, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cfg.Dir, "raft")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	_, err = os.Stat(filepath.Join(dir, nodeIDFile))
	fresh := errors.Is(err, os.ErrNotExist)
	amnesia, err := openAmnesia(dir, fresh, cfg.Logger) // before there is an id: a crash in between starts anew
	if err != nil {
		return nil, err
	}
	id, err := nodeID(dir, cfg.NodeID, cfg.Logger)
	if err != nil {
		return nil, err
	}
	cfg.Logger = cfg.Logger.With("node", id)
	n := &Node{
		cfg: cfg, id: id, instance: randomHex(8), logger: cfg.Logger, metrics: newMetrics(cfg.Registerer),
		fsm: f, snapshots: s, book: &addressBook{}, amnesia: amnesia, disk: newDisk(cfg), clock: newClock(cfg.Now),
		stopped: make(chan struct{}), dead: make(chan struct{}), leaderMoved: make(chan struct{}),
		termMoved: make(chan struct{}),
	}
	if s.damaged > 0 {
		n.metrics.heals.WithLabelValues(partSnapshot).Inc()
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.inflight = newInflight(cfg.MaxInFlightBytes, n.metrics)
	n.fresh, n.contact = newFreshness(f), newContact()
	n.verdicts, n.started = &verdicts{fsm: f}, time.Now()
	n.reads = newBatcher(n.ctx, n.leaderRound)
	n.asks = newBatcher(n.ctx, n.askLeader)
	persistCtx, stop := context.WithCancel(context.Background())
	n.persistStop = stop
	n.source = newSource(n)
	n.catchUp = newCatchUp(n)
	if n.imports, err = newImports(n); err != nil {
		return nil, err
	}
	f.SetImportFiles(n.imports)
	s.attach(id, n.catchUp.receive)
	s.onError(f.NoteWriteError)
	n.machine = &raftFSM{fsm: f, ctx: persistCtx, metrics: n.metrics, restored: n.catchUp.poke}
	defer func() {
		if err != nil {
			n.abort()
		}
	}()
	if err := syncDir(cfg.Dir); err != nil { // what was made in it: the directories of the log, of snapshots and imports
		return nil, err
	}
	if err := n.roomToStart(); err != nil {
		return nil, err
	}
	if err := n.openDisk(dir, fresh); err != nil {
		return nil, err
	}
	if err := n.openNetwork(); err != nil {
		return nil, err
	}
	hadState, err := raft.HasExistingState(n.stores.log, n.stores.stable, s)
	if err != nil {
		return nil, err
	}
	if err := n.startRaft(); err != nil {
		return nil, err
	}
	if n.gossip, err = startGossip(n); err != nil {
		return nil, err
	}
	n.book.gossip.Store(n.gossip)
	n.server.start()
	n.registerGauges(cfg.Registerer)
	n.startLoops()
	n.logger.Info("Cluster node started", "raft", n.advertise, "gossip", n.gossip.address(), "has_state", hadState,
		"recovering", amnesia.reason())
	return n, nil
}

func (n *Node) openNetwork() (err error) {
	if n.mux, err = newMux(n.cfg.ListenAddress, n.id, n.metrics); err != nil {
		return err
	}
	n.advertise, err = advertised(n.cfg.AdvertiseAddress, n.mux.ln.Addr().(*net.TCPAddr))
	if err != nil {
		return err
	}
	n.book.setSelf(n.id, n.mux.ln.Addr().(*net.TCPAddr))
	n.client = newRPCClient(n)
	n.server = newRPCServer(n)
	return nil
}

func (n *Node) startRaft() (err error) {
	n.trans = newTransport(n.mux, n.advertise, n.book, n.cfg.hooks.dialer(), newHCLog(n.logger, "raft-net"))
	n.trans.filter = newRPCFilter(n.trans.NetworkTransport.Consumer(), n.amnesia, n.disk, n.currentTerm, n.clusterID)
	n.stores.guard.replay.Store(true) // NewRaft reads all that is to be replayed; its size counts for the next snapshot
	n.raft, err = raft.NewRaft(raftConfig(n.id, n.logger), n.machine, n.stores.log, n.stores.stable, n.snapshots, n.trans)
	n.stores.guard.replay.Store(false)
	if err != nil {
		_ = n.trans.Close()
		return fmt.Errorf("raft: %w", err)
	}
	n.book.raft.Store(n.raft)
	return nil
}

// currentTerm is 0 before Raft has started.
func (n *Node) currentTerm() uint64 {
	if r := n.book.raft.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// startLoops starts what lives until Shutdown. One file each.
func (n *Node) startLoops() {
	n.loop(n.watchLeader)
	n.loop(n.lead)
	n.loop(n.bootstrap)
	n.loop(n.recollect)
	n.loop(n.watchDisk)
	n.loop(n.watchClock)
	n.loop(n.keepFresh)
	n.loop(n.watchContact)
	n.loop(n.takeSnapshots)
	n.loop(n.source.expire)
	n.loop(n.catchUp.run)
	n.loop(n.imports.tidy)
	n.loop(n.watchFSM)
	n.loop(n.watchDamage)
	n.loop(n.gossip.keepJoining)
	n.loop(n.gossip.watchConflicts)
}

// watchFSM takes a node whose state machine has failed out of Raft, so that it neither acknowledges nor leads. The
// process goes on, mostly: it can be looked at, and its Ready error says why.
func (n *Node) watchFSM(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-n.fsm.Failed():
	}
	n.logger.Error("The state machine has stopped; this node takes no part any more", "err", n.fsm.Err())
	n.endRaft()
	switch {
	case errors.Is(n.fsm.Err(), fsm.ErrNewer): // there is nothing to look at but the version
		n.fatal(n.fsm.Err())
	case errors.Is(n.fsm.Err(), storage.ErrWrite): // like a write to the log that fails
		n.fatal(n.fsm.Err())
	}
	// Only the end closes Raft's transport, and answers what Raft has forgotten. Else each message of the other nodes would
	// keep a connection and a goroutine for as long as this process goes on.
	if n.await(ctx, n.endRaft()) == nil {
		n.raftEnded()
	}
}

// abort releases what a failed Start has opened.
func (n *Node) abort() {
	n.stopLoops()
	n.persistStop()
	if n.raft != nil {
		_ = n.endRaft().Error()
	}
	n.raftEnded()
	if n.gossip != nil {
		_ = n.gossip.close(0)
	}
	_ = n.closeParts()
}

// closeParts closes what Raft stood on.
func (n *Node) closeParts() error {
	var errs []error
	if n.server != nil {
		n.server.close()
	}
	n.source.close()
	if n.client != nil {
		n.client.close()
	}
	if n.mux != nil {
		errs = append(errs, n.mux.Close())
	}
	n.reads.wait()
	n.asks.wait()
	if n.stores != nil {
		errs = append(errs, n.stores.Close())
	}
	return errors.Join(errs...)
}
