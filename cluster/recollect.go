// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	recollectEvery = 200 * time.Millisecond
	recollectLog   = 10 * time.Second
)

// recollect gives an amnesiac node its vote back when that is safe.
//
//  1. It asks the others for their terms, until those that have answered share a node with every majority in which it
//     may have voted: n-m+1 of the n voters, m being a majority, none of them amnesiac. The highest term is the least
//     from which it takes anything. While some voter has not answered, it also waits as long as a vote may be under way.
//  2. It follows the leader until it has applied all that the leader had in its log when it was asked, committed or not.
//     By then it holds whatever it may have acknowledged, if it was committed, or can be without being sent again.
//
// A node that is no voter may have been one before it was removed and wiped. It asks a majority of the voters and then
// catches up, too: without a log it would give its vote to anybody, also to a node that has not heard of the removal. It
// need not wait, for a vote that it gave before counts for nobody who has heard of that, and most voters have. Cost: a wiped
// voter is without a vote for 10 s at least. It may go when Raft itself has a way of readmitting a voter that has lost its disk.
func (n *Node) recollect(ctx context.Context) {
	r := &recollection{node: n, start: time.Now()}
	for ctx.Err() == nil {
		rec := n.amnesia.get()
		if rec == nil {
			return
		}
		if r.step(ctx, rec) {
			if err := n.amnesia.end(); err != nil {
				n.logger.Warn("This node stays without a vote", "err", err)
			} else if rec.Forming == nil {
				n.logger.Info("This node has recovered and votes again", "reason", rec.Reason)
			}
		}
		sleep(ctx, recollectEvery)
	}
}

// recollection is the state of one start.
type recollection struct {
	node   *Node
	start  time.Time
	logged time.Time
	asked  []string // voters of the newest configuration that any node told
	known  bool     // the least term is
	voter  bool     // this node was one of those asked
	least  uint64
	// target is the leader's last index, of the term in which it was asked.
	target, targetTerm uint64
}

// step returns true when this node may speak freely again.
func (r *recollection) step(ctx context.Context, rec *amnesiaRecord) bool {
	n := r.node
	servers := n.servers()
	ids := voters(servers)
	switch {
	case slices.Equal(ids, []string{n.id}): // nobody else could be told anything wrong
		return true
	case rec.Forming != nil:
		return len(servers) > 0 && r.formed(rec, servers)
	}
	reports := r.ask(ctx, ids)
	if r.known {
		return r.caughtUp(reports)
	}
	told, ok := newestConfiguration(reports)
	if !ok {
		r.log("no other node has answered yet", nil)
		return false
	}
	r.asked = told
	member := slices.Contains(told, n.id)
	floor, enough := r.floor(told, member, reports)
	if !enough {
		return false
	}
	partner := ""
	if member && len(told) == 2 {
		partner = told[(slices.Index(told, n.id)+1)%2]
	}
	n.amnesia.learn(floor, partner)
	r.known, r.least, r.voter = true, floor, member // for good: this node promises nothing meanwhile, and the others may lose theirs
	return r.caughtUp(reports)
}

// formed ends the forming: with the cluster that was agreed on, or by admitting that it is another one.
func (r *recollection) formed(rec *amnesiaRecord, servers []raft.Server) bool {
	ids := voters(servers)
	if len(ids) == len(servers) && sameIDs(ids, rec.Forming) {
		return true
	}
	if err := r.node.amnesia.form(nil); err != nil {
		r.node.logger.Warn("Cannot note the loss of memory", "err", err)
	}
	return false
}

func sameIDs(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// ask gets the reports of all nodes that are known from anywhere.
func (r *recollection) ask(ctx context.Context, ids []string) map[string]nodeReport {
	n := r.node
	want := map[string]bool{}
	for _, id := range slices.Concat(ids, r.asked) {
		want[id] = true
	}
	for _, m := range n.gossip.members() {
		want[m.ID] = true
	}
	delete(want, n.id)
	return n.reports(ctx, slices.Collect(maps.Keys(want)))
}

// reports asks nodes at once, for a second at most, and leaves out those that do not answer.
func (n *Node) reports(ctx context.Context, ids []string) map[string]nodeReport {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := make(map[string]nodeReport)
	for _, id := range ids {
		wg.Go(func() {
			rep, err := n.report(ctx, id)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out[id] = rep
		})
	}
	wg.Wait()
	return out
}

// newestConfiguration is that of the leader of the highest term, else of the longest log.
func newestConfiguration(reports map[string]nodeReport) (ids []string, ok bool) {
	var best nodeReport
	for _, rep := range reports {
		if rep.Recovering == "" && len(rep.Voters) > 0 && newer(rep, best) > 0 {
			best, ok = rep, true
		}
	}
	return best.Voters, ok
}

func newer(a, b nodeReport) int {
	leader := func(r nodeReport) uint64 {
		if r.Leader {
			return r.Term
		}
		return 0
	}
	return cmp.Or(cmp.Compare(leader(a), leader(b)), cmp.Compare(a.LastIndex, b.LastIndex), cmp.Compare(len(a.Voters), len(b.Voters)))
}

// floor returns the highest term of enough voters.
func (r *recollection) floor(told []string, member bool, reports map[string]nodeReport) (floor uint64, enough bool) {
	majority := len(told)/2 + 1
	need, others := majority, len(told)
	if member {
		need, others = len(told)-majority+1, len(told)-1
	}
	answered, lost := 0, []string{}
	for _, id := range told {
		rep, ok := reports[id]
		switch {
		case !ok:
		case rep.Recovering != "":
			lost = append(lost, id)
		default:
			answered++
			floor = max(floor, rep.Term)
		}
	}
	switch {
	case others-len(lost) < need:
		r.log("too many nodes have lost their memory", lost)
		return 0, false
	case answered < need:
		r.log("too few of the other nodes have answered", nil)
		return 0, false
	case answered < others && time.Since(r.start) < r.node.cfg.RecoveryWait:
		return 0, false
	}
	return floor, true
}

// caughtUp: see step 2 of recollect.
func (r *recollection) caughtUp(reports map[string]nodeReport) bool {
	n := r.node
	for _, rep := range reports {
		if rep.Leader && rep.Term >= r.least && rep.Term > r.targetTerm {
			r.target, r.targetTerm = rep.LastIndex, rep.Term
		}
	}
	applied, _ := n.fsm.Applied()
	_, known := n.fresh.age()
	if r.targetTerm > 0 && applied >= r.target && n.raft.CurrentTerm() == r.targetTerm && known {
		return !r.voter || time.Since(r.start) >= n.cfg.RecoveryWait
	}
	r.log("catching up", nil)
	return false
}

// log says now and then what this node waits for.
func (r *recollection) log(what string, lost []string) {
	if time.Since(r.logged) < recollectLog || time.Since(r.start) < time.Second {
		return
	}
	r.logged = time.Now()
	l := r.node.logger.With("waiting", what, "reason", r.node.amnesia.reason(), "voters", r.asked)
	if len(lost) == 0 {
		l.Info("This node has no vote until it has recovered")
		return
	}
	l.Error("This node cannot recover by itself, and the cluster may have no leader: acknowledged samples may exist only on what was lost. "+
		"Bring back the data of one of the nodes; or, to accept the loss of what no other node has, stop this node, remove the file, and start it again",
		"also_lost", lost, "file", r.node.amnesia.path)
}
