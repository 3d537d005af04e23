// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package solo is a cluster of one for tests: a real state machine, with a log that is a counter in place of Raft. Its
// failures are switched on by hand.
package solo

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
)

// Node implements api.Cluster and fsm.Proposer.
type Node struct {
	FSM *fsm.FSM

	mu    sync.Mutex // protects the following, and orders Apply
	index uint64
	state State
	peers http.Handler
}

// State is how the node behaves.
type State struct {
	ProposeErr, ReadIndexErr, ReadyErr, AwaitErr, DigestErr, ImportErr, MembershipErr error
	ImportIndex                                                                       uint64 // of the report of an import; 0: none
	Staleness                                                                         time.Duration
	ClockOffset                                                                       time.Duration // of the wall clock
	Away                                                                              []string      // of AwaitAll
	NoLeader                                                                          bool
	Panic                                                                             bool // of Nodes
}

// New opens a state machine in a temporary directory.
func New(tb testing.TB, s fsm.Settings) *Node {
	tb.Helper()
	f, err := fsm.Open(fsm.Options{Dir: tb.TempDir(), Registerer: prometheus.NewRegistry()}, "")
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, f.Close()) })
	n := &Node{FSM: f}
	_, err = n.Propose(context.Background(), fsm.EncodeSettings(s))
	require.NoError(tb, err)
	return n
}

// Set changes how the node behaves.
func (n *Node) Set(s State) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state = s
}

func (n *Node) now() State {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state
}

// Propose applies entry at the next index.
func (n *Node) Propose(_ context.Context, entry []byte) (fsm.Result, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state.ProposeErr != nil {
		return fsm.Result{}, n.state.ProposeErr
	}
	n.index++
	r := n.FSM.Apply(n.index, 1, entry)
	n.FSM.Publish(n.index, 1)
	return r, n.FSM.Err()
}

// ReadIndex is the newest index.
func (n *Node) ReadIndex(context.Context) (uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.index, n.state.ReadIndexErr
}

// ID is "solo".
func (*Node) ID() string { return "solo" }

// Staleness is State.Staleness.
func (n *Node) Staleness() time.Duration { return n.now().Staleness }

// Newest knows two clocks, State.ClockOffset apart.
func (n *Node) Newest() (sure, never time.Time) {
	by, now := n.now().ClockOffset, time.Now().Add(cluster.MaxAhead)
	return now.Add(min(by, 0)), now.Add(max(by, 0))
}

// OwnTimes ends with the lower one.
func (n *Node) OwnTimes() (oldest, newest time.Time) {
	sure, _ := n.Newest()
	return time.Time{}, sure
}

// Ready is State.ReadyErr.
func (n *Node) Ready() error { return n.now().ReadyErr }

// Leader is this node, unless State.NoLeader.
func (n *Node) Leader() (string, bool) {
	if n.now().NoLeader {
		return "", false
	}
	return n.ID(), true
}

// Nodes is this node.
func (n *Node) Nodes(context.Context) []cluster.NodeStatus {
	if n.now().Panic {
		panic("on request")
	}
	index, _ := n.FSM.Applied()
	return []cluster.NodeStatus{{ID: n.ID(), Role: cluster.RoleLeader, AppliedIndex: index, CommitIndex: index, Voter: true, Alive: true}}
}

// AwaitAll waits for this node.
func (n *Node) AwaitAll(ctx context.Context, index uint64, task string) (away []string, err error) {
	s := n.now()
	if s.AwaitErr != nil {
		return nil, s.AwaitErr
	}
	if err := n.FSM.Wait(ctx, index); err != nil || task == "" {
		return s.Away, err
	}
	return s.Away, n.FSM.WaitTask(ctx, task)
}

// Digest is equal, for there is one node.
func (n *Node) Digest(ctx context.Context, ranges []fsm.TimeRange) (*cluster.DigestReport, error) {
	if err := n.now().DigestErr; err != nil {
		return nil, err
	}
	r, err := n.Propose(ctx, fsm.EncodeDigest(fsm.Digest{ID: "d", Hurry: true, Ranges: ranges}))
	if err != nil {
		return nil, err
	}
	d, err := n.FSM.WaitDigest(ctx, "d")
	return &cluster.DigestReport{
		ID: "d", Index: r.Index, Ranges: ranges, Result: cluster.DigestEqual, Nodes: []cluster.NodeDigest{{ID: n.ID(), Result: &d}},
	}, err
}

// Members is this node.
func (n *Node) Members() []cluster.Member { return []cluster.Member{{ID: n.ID()}} }

// HandlePeers keeps h for AskPeer.
func (n *Node) HandlePeers(h http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.peers = h
}

// AskPeer asks the handler itself. Other nodes do not answer.
func (n *Node) AskPeer(ctx context.Context, id, method, uri string, header http.Header, body io.Reader) (*http.Response, error) {
	if id != n.ID() {
		return nil, errors.New("no answer")
	}
	req := httptest.NewRequestWithContext(ctx, method, uri, body)
	for name, values := range header {
		req.Header[name] = values
	}
	n.mu.Lock()
	h := n.peers
	n.mu.Unlock()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Result(), nil
}

// TransferLeadership changes nothing.
func (n *Node) TransferLeadership(context.Context, string) error { return n.now().MembershipErr }

// RemovePeer removes nobody, at index 7.
func (n *Node) RemovePeer(context.Context, string) (uint64, error) {
	if err := n.now().MembershipErr; err != nil {
		return 0, err
	}
	return 7, nil
}

// Import takes any body, and says how many bytes it had.
func (n *Node) Import(_ context.Context, tarball io.Reader) (*cluster.ImportReport, error) {
	size, err := io.Copy(io.Discard, tarball)
	if err != nil {
		return nil, err
	}
	s := n.now()
	return &cluster.ImportReport{Index: s.ImportIndex, Samples: uint64(size), Duplicates: 1}, s.ImportErr
}
