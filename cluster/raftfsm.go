// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/internal/fault"
	"github.com/deucaliondb/deucalion/internal/plant"
)

// raftFSM lets Raft drive an fsm.FSM. It is a raft.BatchingFSM because those alone see configuration entries: the
// published index would otherwise stop short of the commit index whenever the last entry is one.
type raftFSM struct {
	fsm     *fsm.FSM
	ctx     context.Context // ends a Persist that is under way
	metrics *metrics
	// restored is called when the state of another node's snapshot has been taken over.
	restored func()
}

// failed reports whether the state machine has stopped.
func (a *raftFSM) failed() bool {
	select {
	case <-a.fsm.Failed():
		return true
	default:
		return false
	}
}

// Apply implements raft.FSM.
func (a *raftFSM) Apply(l *raft.Log) any { return a.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. A response is a fsm.Result or an error. After a failure nothing is applied
// and nothing is published, not even the good part of the batch: its proposers try again on another node.
func (a *raftFSM) ApplyBatch(ls []*raft.Log) []any {
	fault.Point(fault.ApplyBefore)
	if plant.PublishEarly {
		a.fsm.Publish(ls[len(ls)-1].Index, ls[len(ls)-1].Term)
	}
	out := make([]any, len(ls))
	for i, l := range ls {
		if a.failed() {
			break
		}
		if l.Type == raft.LogCommand {
			out[i] = a.fsm.Apply(l.Index, l.Term, l.Data)
		}
	}
	if a.failed() {
		err := fmt.Errorf("%w: %w", ErrFSMFailed, a.fsm.Err())
		for i := range out {
			out[i] = err
		}
		return out
	}
	fault.Point(fault.ApplyAfter)
	last := ls[len(ls)-1]
	a.fsm.Publish(last.Index, last.Term)
	return out
}

// Snapshot implements raft.FSM.
func (a *raftFSM) Snapshot() (raft.FSMSnapshot, error) {
	if a.failed() {
		return nil, ErrFSMFailed
	}
	s, err := a.fsm.Snapshot()
	if err != nil {
		return nil, err
	}
	return &fsmSnapshot{snapshot: s, ctx: a.ctx}, nil
}

// Restore implements raft.FSM. Nothing is read from rc: the snapshot's files are on this disk already, below the
// reader that our own store made.
func (a *raftFSM) Restore(rc io.ReadCloser) error {
	for {
		switch r := rc.(type) {
		case *snapshotReader:
			m, err := fsm.ReadManifest(r.dir)
			if err == nil && holds(a.fsm, m) && !a.failed() {
				return nil // restored before, and the leader has not got the answer, perhaps because it took too long
			}
			a.metrics.installs.Inc()
			if err := a.fsm.Restore(r.dir); err != nil {
				return err
			}
			a.restored()
			return nil
		case raft.ReadCloserWrapper:
			rc = r.WrappedReadCloser()
		default:
			return fmt.Errorf("cannot restore from a %T", rc)
		}
	}
}

// fsmSnapshot is a raft.FSMSnapshot that is persisted by filling our sink's directory.
type fsmSnapshot struct {
	snapshot *fsm.Snapshot
	ctx      context.Context
}

// Persist implements raft.FSMSnapshot.
func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	k, ok := sink.(*snapshotSink)
	if !ok {
		return errors.New("sink of a foreign snapshot store")
	}
	return s.snapshot.Persist(s.ctx, k.dataDir())
}

// Release implements raft.FSMSnapshot.
func (s *fsmSnapshot) Release() { s.snapshot.Release() }
