// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/deucaliondb/deucalion/fsm"
)

// digestTimeout bounds the wait for the results of one digest.
const digestTimeout = 15 * time.Minute

// Results of a comparison.
const (
	DigestEqual      = "equal"
	DigestMismatch   = "mismatch"   // nodes differ
	DigestError      = "error"      // a node cannot read its data; the others agree
	DigestIncomplete = "incomplete" // not all members answered; the others agree
)

// DigestReport compares what the members hold at one log index.
type DigestReport struct {
	ID     string          `json:"id"`
	Index  uint64          `json:"index"`
	Time   time.Time       `json:"time"`
	Ranges []fsm.TimeRange `json:"ranges"`
	// Scheduled: by the leader's duty, and not on demand.
	Scheduled bool   `json:"scheduled"`
	Result    string `json:"result"`
	// Differing are the members whose hashes are not the majority's; without a majority all that answered.
	Differing []string     `json:"differing,omitempty"`
	Nodes     []NodeDigest `json:"nodes"`
}

// NodeDigest is one member's part.
type NodeDigest struct {
	ID      string            `json:"id"`
	Differs bool              `json:"differs"`
	Missing string            `json:"missing,omitempty"` // why there is no result
	Result  *fsm.DigestResult `json:"result,omitempty"`
}

// Digest makes every member hash its tables and the samples of ranges at one log index, and compares. All members,
// non-voters included, learn the outcome. It works on any node and returns when all have answered, or ctx ends (15 min
// without a deadline). The members work at full speed. An error means that nothing was compared.
func (n *Node) Digest(ctx context.Context, ranges []fsm.TimeRange) (*DigestReport, error) {
	return n.digest(ctx, ranges, false)
}

func (n *Node) digest(ctx context.Context, ranges []fsm.TimeRange, scheduled bool) (*DigestReport, error) {
	if len(ranges) > fsm.MaxDigestRanges {
		return nil, fmt.Errorf("%d ranges, at most %d", len(ranges), fsm.MaxDigestRanges)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, digestTimeout)
		defer cancel()
	}
	r := &DigestReport{ID: randomHex(8), Ranges: ranges, Scheduled: scheduled}
	propose := n.Propose
	if scheduled {
		propose = n.leaderPropose
	}
	pctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	res, err := propose(pctx, fsm.EncodeDigest(fsm.Digest{ID: r.ID, Hurry: !scheduled, Ranges: ranges}))
	if err == nil && res.Err != "" {
		err = errors.New(res.Err)
	}
	if err != nil {
		return nil, err
	}
	r.Index = res.Index
	n.collectDigests(ctx, r)
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, ctx.Err() // says nothing about the members
	}
	r.Time = time.Now().UTC()
	compareDigests(r)
	n.metrics.digests.WithLabelValues(r.Result).Inc()
	n.logDigest(r)
	n.spreadVerdict(r)
	return r, nil
}

// collectDigests asks all members at once. A node that lags does not know yet of a member that was added just before, so
// it waits a little; if it goes on to lag, or is broken, the members that it knows are compared all the same.
func (n *Node) collectDigests(ctx context.Context, r *DigestReport) {
	wctx, cancel := context.WithTimeout(ctx, awaitGrace)
	_ = n.awaitHere(wctx, awaitRequest{Index: r.Index})
	cancel()
	servers := n.servers()
	r.Nodes = make([]NodeDigest, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			d := NodeDigest{ID: string(s.ID)}
			res, err := n.askDigest(ctx, d.ID, digestRequest{r.Index, r.ID})
			if err != nil {
				d.Missing = err.Error()
			} else {
				d.Result = &res
			}
			r.Nodes[i] = d
		})
	}
	wg.Wait()
}

type digestRequest struct {
	Index uint64 `json:"index"`
	ID    string `json:"id"`
}

// digestReply without a result and without Err: not done yet.
type digestReply struct {
	Result *fsm.DigestResult `json:"result,omitempty"`
	Err    string            `json:"err,omitempty"`
}

// askDigest waits for the result of one member. One that is dead or out of reach is not waited for: if it
// restarts, it passes over this digest.
func (n *Node) askDigest(ctx context.Context, id string, r digestRequest) (fsm.DigestResult, error) {
	if id == n.id {
		return n.digestHere(ctx, r)
	}
	var reply digestReply
	err := n.pollMember(ctx, id, rpcDigest, r, &reply, func() (bool, error) {
		if reply.Err != "" {
			return true, errors.New(reply.Err)
		}
		return reply.Result != nil, nil
	})
	if err != nil {
		return fsm.DigestResult{}, err
	}
	return *reply.Result, nil
}

var errDigestSkipped = errors.New("this node passed the entry without computing it (it restarted or took over a snapshot)")

func (n *Node) digestHere(ctx context.Context, r digestRequest) (fsm.DigestResult, error) {
	if err := n.awaitHere(ctx, awaitRequest{Index: r.Index}); err != nil {
		return fsm.DigestResult{}, err
	}
	res, err := n.fsm.WaitDigest(ctx, r.ID)
	if errors.Is(err, fsm.ErrUnknownTask) {
		err = errDigestSkipped
	}
	return res, err
}

func (n *Node) handleDigest(ctx context.Context, body []byte) ([]byte, error) {
	var r digestRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, awaitPoll)
	defer cancel()
	res, err := n.digestHere(ctx, r)
	switch {
	case err == nil:
		return jsonReply(digestReply{Result: &res})
	case ctx.Err() != nil:
		return jsonReply(digestReply{})
	default:
		return jsonReply(digestReply{Err: err.Error()})
	}
}

// logDigest tells the operator what to look at.
func (n *Node) logDigest(r *DigestReport) {
	attrs := []any{"result", r.Result, "index", r.Index, "ranges", fmt.Sprint(r.Ranges)}
	switch r.Result {
	case DigestEqual:
		n.logger.Info("All members hold the same data", attrs...)
		return
	case DigestIncomplete:
		for _, d := range r.Nodes {
			if d.Missing != "" {
				attrs = append(attrs, d.ID, d.Missing)
			}
		}
		n.logger.Warn("Not all members could be compared", attrs...)
		return
	}
	for _, d := range r.Nodes {
		attrs = append(attrs, d.ID, d.hashes())
	}
	if r.Result == DigestError {
		n.logger.Error("A member cannot read its own data", attrs...)
		return
	}
	n.logger.Error("Members differ in their data at the same log index; take those that differ out of service and let them join anew",
		append(attrs, "differing", fmt.Sprint(r.Differing))...)
}
