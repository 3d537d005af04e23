// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/internal/plant"
)

const amnesiaFile = "amnesiac"

// amnesia is the state of a node that does not know what it has promised to Raft: its log or its vote was damaged, or
// its data directory is empty. An empty one may belong to a voter that was wiped, which looks like any new node.
//
// Raft counts on what a voter has said: entries that it acknowledged, votes that it gave. If this node voted, a leader
// could be elected that lacks an acknowledged entry which only this node and one that is down had. If it took entries
// from the leader of an old term, after having voted for a later one, both leaders could commit. So an amnesiac node
//
//   - gives no vote and no pre-vote, and does not stand for election;
//   - takes nothing from a leader until it knows the terms of enough others, and then nothing of an earlier term;
//
// until it holds all that the leader had, see recollect.go. The state is kept in <Dir>/raft/amnesiac. A new node loses it
// by forming a cluster: then all of the others are new as well. Tests: TestAmnesia*.
type amnesia struct {
	path   string
	logger *slog.Logger

	mu      sync.Mutex     // protects the following
	record  *amnesiaRecord // nil: this node knows all that it said
	floor   uint64         // least term to be spoken to; 0: not known yet
	partner string         // the one node to which a vote may be given, see learn
	learnt  chan struct{}  // closed when floor is known
}

// amnesiaRecord is what the file says.
type amnesiaRecord struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	// Forming are the voters of the cluster that this new node has agreed to form. With them it speaks freely.
	Forming []string `json:"forming,omitempty"`
}

// openAmnesia reads the state below the raft directory dir; fresh says that there was no directory before. A file that
// cannot be read counts: it was there for a reason.
func openAmnesia(dir string, fresh bool, logger *slog.Logger) (*amnesia, error) {
	a := &amnesia{path: filepath.Join(dir, amnesiaFile), logger: logger, learnt: make(chan struct{})}
	b, err := readSummed(a.path)
	switch {
	case err == nil:
		a.record = &amnesiaRecord{}
		if err := json.Unmarshal(b, a.record); err != nil {
			a.record = &amnesiaRecord{Reason: "the record of an earlier loss is unreadable", Since: time.Now()}
		}
	case errors.Is(err, errSum):
		a.record = &amnesiaRecord{Reason: "the record of an earlier loss is damaged", Since: time.Now()}
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	case fresh:
		return a, a.begin("the data directory was empty")
	}
	return a, nil
}

// begin makes this node amnesiac, durably. The first reason is kept.
func (a *amnesia) begin(reason string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := amnesiaRecord{Reason: reason, Since: time.Now()}
	if a.record != nil {
		r.Reason, r.Since = a.record.Reason, a.record.Since
	}
	return a.writeLocked(r)
}

func (a *amnesia) writeLocked(r amnesiaRecord) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := writeSummed(a.path, b); err != nil {
		return fmt.Errorf("note the loss of memory: %w", err)
	}
	a.record = &r
	return nil
}

// form lets a new node speak with the voters of the cluster that it is about to form with them.
func (a *amnesia) form(group []string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.record == nil || slices.Equal(a.record.Forming, group) {
		return nil
	}
	r := *a.record
	r.Forming = group
	return a.writeLocked(r)
}

// end gives the vote back, durably.
func (a *amnesia) end() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.record == nil {
		return nil
	}
	if err := os.Remove(a.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := syncDir(filepath.Dir(a.path)); err != nil {
		return err
	}
	a.record = nil
	return nil
}

// get returns the record, nil when this node remembers.
func (a *amnesia) get() *amnesiaRecord {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.record // never changed, only replaced
}

// active tells whether this node has no vote.
func (a *amnesia) active() bool { return a.reason() != "" }

// reason is why this node has no vote, "" if it has one.
func (a *amnesia) reason() string {
	r := a.get()
	if r == nil || r.Forming != nil {
		return ""
	}
	return r.Reason
}

// learn sets the least term. partner is the other voter of a cluster of two: it holds all that was ever committed, for
// that took both, so it may lead; and without this node's vote nobody would ever.
func (a *amnesia) learn(floor uint64, partner string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.floor == 0 {
		close(a.learnt)
	}
	a.floor, a.partner = max(a.floor, floor, 1), partner
}

// term is what this node may tell a leader that asks in which term it is; current is Raft's.
func (a *amnesia) term(current uint64) (uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.record == nil || a.record.Forming != nil:
		return current, nil
	case a.floor == 0:
		return 0, errors.New("this node has lost its term")
	}
	return max(a.floor, current), nil
}

// mayVote tells whether a request for a vote reaches Raft.
func (a *amnesia) mayVote(candidate string, term uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.record == nil || plant.VoteWithoutMemory:
		return true
	case a.record.Forming != nil:
		return slices.Contains(a.record.Forming, candidate)
	}
	return a.floor > 0 && term >= a.floor && candidate == a.partner
}

// mayStand tells whether this node may ask for votes.
func (a *amnesia) mayStand() bool { return !a.active() || plant.VoteWithoutMemory }

// mayFollow tells whether a leader's entries or snapshot reach Raft. wait: not known yet; else stale is the term to
// answer with.
func (a *amnesia) mayFollow(leader string, term uint64) (ok, wait bool, stale uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.record == nil || plant.VoteWithoutMemory {
		return true, false, 0
	}
	if a.record.Forming != nil {
		if slices.Contains(a.record.Forming, leader) {
			return true, false, 0
		}
		// Another cluster has this node as a member: it may be a wiped one after all.
		r := *a.record
		r.Forming = nil
		if err := a.writeLocked(r); err != nil {
			a.logger.Error("A leader is not answered", "leader", leader, "err", err)
			return false, true, 0
		}
	}
	switch {
	case a.floor == 0:
		return false, true, 0
	case term < a.floor:
		return false, false, a.floor
	}
	return true, false, 0
}

// requestFrom is the id of the node that sent a request.
func requestFrom(c raft.WithRPCHeader) string { return string(c.GetRPCHeader().ID) }

// writeSummed replaces a small file of one line durably; a second line holds its CRC-32C.
func writeSummed(name string, line []byte) error {
	return writeFileDurably(name, appendSum(append(slices.Clip(line), '\n'), line))
}

// readSummed returns the line. The error is errSum if the file is not what was written.
func readSummed(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	line, sum, _ := bytes.Cut(b, []byte("\n"))
	if !bytes.Equal(sum, appendSum(nil, line)) {
		return nil, fmt.Errorf("%s: %w", name, errSum)
	}
	return line, nil
}
