// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

// TestPartitions cuts the network between three nodes under load, in every way that partition_nemesis_test.go knows.
// At every moment: one leader a term at most, linearizable reads that have all writes acknowledged before, local reads
// that never go back. In the end: equal data and logs everywhere, every acknowledged write, nothing that was never
// sent, and for each series a linearizable history.
//
//	DEUCALION_PARTITION_TIME=30m DEUCALION_PARTITION_SEED=1 go test ./cluster -run TestPartitions -timeout 40m
func TestPartitions(t *testing.T) {
	length := 20 * time.Second
	if testing.Short() {
		length = 10 * time.Second
	}
	if s := os.Getenv("DEUCALION_PARTITION_TIME"); s != "" {
		var err error
		length, err = time.ParseDuration(s)
		require.NoError(t, err, "DEUCALION_PARTITION_TIME")
	}
	seed := rand.Uint64()
	if s := os.Getenv("DEUCALION_PARTITION_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err, "DEUCALION_PARTITION_SEED")
	}
	t.Logf("DEUCALION_PARTITION_TIME=%s DEUCALION_PARTITION_SEED=%d", length, seed)

	w := newNetwork()
	nodes := startPartitioned(t, w)
	watch := watchLeaders(t, nodes)
	defer watch.stop()
	l := startLoad(t, nodes, 6, 6, seed)
	defer l.finish()
	m := &nemesis{t: t, network: w, nodes: nodes, rng: rand.New(rand.NewPCG(seed, 1)), done: map[string]int{}}
	defer w.heal()
	for start := time.Now(); time.Since(start) < length && !t.Failed(); {
		m.strike()
	}
	w.heal()
	l.finish()
	watch.stop()
	final := settle(t, nodes)
	for _, p := range nodes {
		m.count(p)
	}
	t.Logf("faults: %v; %d terms with a leader; %v snapshots installed", m.done, len(watch.leaders), m.installs)
	l.judge(final)
	for what, n := range map[string]int64{
		"linearizable reads": l.reads.Load(), "local reads": l.localReads.Load(),
		"acknowledged writes": l.writes.Load() - l.unknown.Load(), "terms with a leader": int64(len(watch.leaders)),
	} {
		require.Positive(t, n, what)
	}
	nodes[0].n.mustWrite(0) // one entry at least that no snapshot stands for
	for _, p := range nodes {
		p.n.waitCount(1)
	}
	requireLogsMatch(t, nodes)
}

// partNode is a node that may be down, or being replaced by its next life, while others use it.
type partNode struct {
	id string

	mu   sync.RWMutex // held shared over each use of the following
	n    *testNode
	life int64

	fatalMu sync.Mutex // protects the following
	fatal   error
}

func startPartitioned(t *testing.T, w *network) []*partNode {
	t.Helper()
	var nodes []*partNode
	for i := range 3 {
		p := &partNode{id: fmt.Sprintf("n%d", i)}
		cfg := cluster.Config{
			NodeID: p.id, BootstrapExpect: 3, SnapshotEntries: 400, TrailingLogBytes: 1, LogSegmentBytes: 64 << 10,
			OnFatal: p.onFatal,
		}
		cfg.SetNetwork(w.dialer(p.id), w.memberlist(p.id))
		for _, n := range nodes {
			cfg.Peers = append(cfg.Peers, n.n.GossipAddress())
		}
		p.n = startNode(t, cfg)
		w.own(p.n.Address(), p.id)
		w.own(p.n.GossipAddress(), p.id)
		nodes = append(nodes, p)
	}
	for _, p := range nodes {
		p.n.waitReady()
	}
	return nodes
}

// onFatal keeps the reason until the nemesis starts the node again, as a supervisor would.
func (p *partNode) onFatal(err error) {
	p.fatalMu.Lock()
	defer p.fatalMu.Unlock()
	p.fatal = err
}

func (p *partNode) takeFatal() error {
	p.fatalMu.Lock()
	defer p.fatalMu.Unlock()
	err := p.fatal
	p.fatal = nil
	return err
}

// append writes sample v of r through this node.
func (p *partNode) append(r *register, v int64) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.n.down {
		return errDown
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	b := p.n.fsm.NewBatch()
	defer b.Release()
	b.Series(nil, r.labels())
	b.Float(v, float64(v))
	out, err := b.Commit(ctx, p.n)
	if err == nil && len(out.Refused) > 0 {
		p.n.t.Errorf("sample %d of %s refused on %s: %v", v, r.labels(), p.id, out.Refused)
	}
	return err
}

// read returns how many samples r has, and in which life of the node.
func (p *partNode) read(r *register, linearizable bool) (have, life int64, err error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.n.down {
		return 0, p.life, errDown
	}
	if linearizable {
		ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
		defer cancel()
		index, err := p.n.ReadIndex(ctx)
		if err != nil {
			return 0, p.life, err
		}
		if err := p.n.fsm.Wait(ctx, index); err != nil {
			return 0, p.life, err
		}
	}
	all, err := p.n.dump(labels.MustNewMatcher(labels.MatchEqual, "__name__", "register"),
		labels.MustNewMatcher(labels.MatchEqual, "n", r.labels().Get("n")))
	row := all[r.labels().String()]
	for i, s := range row {
		if s.t != int64(i+1) || s.v != float64(i+1) {
			return 0, p.life, fmt.Errorf("%w: sample %d is %v at %d", errDamage, i+1, s.v, s.t)
		}
	}
	return int64(len(row)), p.life, err
}

// leaderWatch notes who leads which term.
type leaderWatch struct {
	leaders map[uint64]string
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

func watchLeaders(t *testing.T, nodes []*partNode) *leaderWatch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &leaderWatch{leaders: map[uint64]string{}, cancel: cancel}
	w.wg.Go(func() {
		for ctx.Err() == nil {
			for _, p := range nodes {
				term, leads := p.leads()
				if !leads {
					continue
				}
				if other, ok := w.leaders[term]; ok && other != p.id {
					t.Errorf("term %d has two leaders, %s and %s", term, other, p.id)
				}
				w.leaders[term] = p.id
			}
			sleepCtx(ctx, time.Millisecond)
		}
	})
	return w
}

func (w *leaderWatch) stop() {
	w.cancel()
	w.wg.Wait()
}

func sleepCtx(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (p *partNode) leads() (term uint64, ok bool) {
	if !p.mu.TryRLock() {
		return 0, false
	}
	defer p.mu.RUnlock()
	if p.n.down {
		return 0, false
	}
	return p.n.LeadingTerm()
}

// settle waits until all nodes have everything, holds their data against each other, and returns them.
func settle(t *testing.T, nodes []*partNode) map[string][]sample {
	t.Helper()
	var final map[string][]sample
	var first string
	for _, p := range nodes {
		require.Eventually(t, func() bool { return p.n.Ready() == nil }, 60*time.Second, 10*time.Millisecond, "%s: %v", p.id, p.n.Ready())
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		index, err := p.n.ReadIndex(ctx)
		require.NoError(t, err, p.id)
		require.NoError(t, p.n.fsm.Wait(ctx, index), p.id)
		cancel()
		all, err := p.n.dump(labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
		require.NoError(t, err, p.id)
		if text := textOf(all); first == "" {
			final, first = all, text
		} else {
			require.True(t, first == text, "data of %s and %s differ", nodes[0].id, p.id)
		}
	}
	return final
}

func textOf(all map[string][]sample) string {
	rows := make([]string, 0, len(all))
	for k, v := range all {
		rows = append(rows, fmt.Sprint(k, v))
	}
	slices.Sort(rows)
	return strings.Join(rows, "\n")
}

// requireLogsMatch: entries that two nodes have applied are the same on both, and so are their terms.
func requireLogsMatch(t *testing.T, nodes []*partNode) {
	t.Helper()
	compared := 0
	for i, p := range nodes[1:] {
		q := nodes[i]
		first, last := p.n.LogBounds()
		committed, _ := p.n.fsm.Applied()
		other, _ := q.n.fsm.Applied()
		for x := first; x <= min(last, committed, other); x++ {
			a, okA := p.n.LogEntry(x)
			b, okB := q.n.LogEntry(x)
			if !okA || !okB {
				continue // behind a snapshot
			}
			compared++
			require.True(t, a.Term == b.Term && bytes.Equal(a.Data, b.Data), "entry %d of %s and %s", x, p.id, q.id)
		}
	}
	t.Logf("%d pairs of log entries are equal", compared)
	require.Positive(t, compared)
}

// fatalIsKnown: the watchdogs end a process in states that only a restart leaves.
func fatalIsKnown(err error) bool { return err == nil || strings.Contains(err.Error(), "raft#696") }
