// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// Raft's times. A leader that cannot reach a majority steps down after the lease; nobody else is elected before the
// heartbeat timeout. The lease must stay well below it. Shorter times fail over sooner and lose the leadership on a
// busy machine again and again. With 1 s the next write was acknowledged 1.1 to 2.8 s after a kill -9 of the leader, for the
// pre-vote of the first candidate is refused by a follower that still believes in the dead leader, and a second
// timeout passes.
const (
	heartbeatTimeout = 700 * time.Millisecond
	leaderLease      = 400 * time.Millisecond
	// commitTimeout is how soon an idle follower learns that an entry is committed, at the price of an empty
	// message that often.
	commitTimeout = 10 * time.Millisecond
	// initialTrailingLogs holds until the mean size of an entry is known.
	initialTrailingLogs = 1024
)

// raftConfig returns Raft's configuration. Raft's own snapshot trigger counts entries only and is switched off; see
// node_snapshot.go.
func raftConfig(id string, logger *slog.Logger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(id)
	c.HeartbeatTimeout = heartbeatTimeout
	c.ElectionTimeout = heartbeatTimeout
	c.LeaderLeaseTimeout = leaderLease
	c.CommitTimeout = commitTimeout
	c.MaxAppendEntries = 32 // Raft queues up to 128 times as many entries for the FSM
	c.ShutdownOnRemove = false
	c.TrailingLogs = initialTrailingLogs
	c.SnapshotInterval = 1000 * time.Hour
	c.SnapshotThreshold = math.MaxUint64
	c.NoSnapshotRestoreOnStart = true // the FSM has been opened from the newest snapshot
	c.NoLegacyTelemetry = true
	c.Logger = newHCLog(logger, "raft")
	return c
}

// checkLog holds the log against the snapshots, before Raft reads either. Raft would panic on a hole, and a node that
// has silently forgotten entries which it acknowledged can lose them for the whole cluster.
func checkLog(log logStore, snaps *SnapshotStore, logger *slog.Logger) error {
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	snap, _ := snaps.newest()
	const advice = "empty the data directory and let this node join again under its id"
	switch {
	case snaps.damaged > snap && last < snaps.damaged:
		return fmt.Errorf("%w: the snapshot at index %d is damaged and the log ends at %d; %s", ErrDamaged, snaps.damaged, last, advice)
	case last == 0:
		return nil
	case last < snap:
		// A leader's snapshot was installed and the process died before the log that it replaces was emptied.
		// Appending after the snapshot would leave a hole, which the log store refuses.
		logger.Info("Emptying the Raft log, an installed snapshot replaces it", "log_last", last, "snapshot", snap)
		return log.DeleteRange(first, last)
	case first > snap+1:
		return fmt.Errorf("%w: the newest good snapshot is at index %d, the log begins at %d; %s", ErrDamaged, snap, first, advice)
	}
	return nil
}

// forgetHalfBootstrap undoes a bootstrap that died between its two writes, term 1 and the first entry. The node has
// neither voted nor acknowledged anything, but Raft would take it for one with state, and it would wait for ever.
func forgetHalfBootstrap(s *stores, snaps *SnapshotStore) error {
	last, err := s.log.LastIndex()
	if err != nil {
		return err
	}
	if index, _ := snaps.newest(); last > 0 || index > 0 {
		return nil
	}
	term, err := stableUint64(s.stable, keyCurrentTerm)
	if err != nil || term != 1 {
		return err
	}
	if vote, err := stableUint64(s.stable, keyLastVoteTerm); err != nil || vote > 0 {
		return err
	}
	return s.stable.SetUint64(keyCurrentTerm, 0)
}
