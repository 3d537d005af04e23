// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/deucaliondb/deucalion/fsm"
)

// verdictTimeout bounds the call that tells one member of the outcome.
const verdictTimeout = 5 * time.Second

// DigestStatus is the newest comparison that a node has heard of since it started.
type DigestStatus struct {
	Index     uint64    `json:"index"`
	Time      time.Time `json:"time"`
	Result    string    `json:"result"`
	Differing bool      `json:"differing"` // this node's data are not what the majority has, or cannot be read
}

// verdicts is what this node knows of digests. A restart forgets it: the next digest says it again.
type verdicts struct {
	fsm *fsm.FSM

	mu     sync.Mutex // protects the following
	last   *DigestStatus
	seen   time.Time       // when the newest scheduled report came
	ranges []fsm.TimeRange // what it covered
	found  findings
}

// add takes in a report.
func (v *verdicts) add(r *DigestReport, self string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.found.add(r)
	if r.Scheduled {
		v.seen, v.ranges = time.Now(), r.Ranges
	}
	if v.last != nil && r.Index <= v.last.Index {
		return
	}
	s := &DigestStatus{Index: r.Index, Time: r.Time, Result: r.Result}
	for _, d := range r.Nodes {
		if d.ID == self {
			s.Differing = d.Differs || d.failed()
		}
	}
	v.last = s
}

func (v *verdicts) status() *DigestStatus {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.last
}

// scheduled returns when the newest report of the duty came and what it covered.
func (v *verdicts) scheduled() (time.Time, []fsm.TimeRange) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen, v.ranges
}

// mismatch tells whether the newest comparison of some part of the data found something wrong.
func (v *verdicts) mismatch() bool {
	cutoff := v.fsm.Cutoff()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.found.expire(cutoff)
	return v.found.any()
}

// spreadVerdict tells all members, each once: who misses it hears the next one.
func (n *Node) spreadVerdict(r *DigestReport) {
	n.verdicts.add(r, n.id)
	ctx, cancel := context.WithTimeout(n.ctx, verdictTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, d := range r.Nodes {
		if d.ID == n.id {
			continue
		}
		wg.Go(func() {
			if err := n.client.callJSON(ctx, d.ID, rpcVerdict, r, nil); err != nil {
				n.logger.Debug("A member did not hear the outcome of a digest", "member", d.ID, "err", err)
			}
		})
	}
	wg.Wait()
}

func (n *Node) handleVerdict(_ context.Context, body []byte) ([]byte, error) {
	var r DigestReport
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	n.verdicts.add(&r, n.id)
	if s := n.verdicts.status(); s != nil && s.Index == r.Index && s.Differing {
		n.logger.Error("This node's data differ from the other members', or cannot be read", "index", r.Index, "result", r.Result)
	}
	return nil, nil
}
