// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/monitor"
)

// interval is how often the rules of these tests are evaluated.
const interval = 2 * time.Second

// ruleNode is a node with a Ruler.
type ruleNode struct {
	*cluster.Node
	t        *testing.T
	cfg      cluster.Config
	conf     string
	rules    string // path of the rule file, the same for all nodes
	log      *evalLog
	fsm      *fsm.FSM
	ruler    *monitor.Ruler
	registry *prometheus.Registry
	down     bool
	deposed  atomic.Bool // the others have another leader, which this node has not heard of
}

// ConfirmLeader implements monitor.RulerCluster.
func (n *ruleNode) ConfirmLeader(ctx context.Context) error {
	if n.deposed.Load() {
		return cluster.ErrNoLeader
	}
	return n.Node.ConfirmLeader(ctx)
}

// evalLog tells which node has recorded which evaluation.
type evalLog struct {
	mu    sync.Mutex // protects the following
	nodes map[int64][]string
}

// watched is an Appendable that writes samples of the metric tick down in the log.
type watched struct {
	promstorage.Appendable
	node string
	log  *evalLog
}

func (w watched) Appender(ctx context.Context) promstorage.Appender {
	return watchedAppender{w.Appendable.Appender(ctx), w}
}

type watchedAppender struct {
	promstorage.Appender
	watched
}

func (a watchedAppender) Append(ref promstorage.SeriesRef, ls labels.Labels, t int64, v float64) (promstorage.SeriesRef, error) {
	if ls.Get(model.MetricNameLabel) == "tick" {
		a.log.mu.Lock()
		a.log.nodes[t] = append(a.log.nodes[t], a.node)
		a.log.mu.Unlock()
	}
	return a.Appender.Append(ref, ls, t, v)
}

func (a watchedAppender) SetOptions(o *promstorage.AppendOptions) { a.Appender.SetOptions(o) }

// startRulers forms a cluster of three whose rules are the given groups and whose alerts go to am.
func startRulers(t *testing.T, rules string, am *receiver) []*ruleNode {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rules.yml")
	require.NoError(t, os.WriteFile(file, []byte(rules), 0o644))
	log := &evalLog{nodes: map[int64][]string{}}
	var nodes []*ruleNode
	for i := range 3 {
		id := fmt.Sprintf("n%d", i)
		n := &ruleNode{t: t, log: log, rules: file, cfg: cluster.Config{
			Dir: t.TempDir(), NodeID: id, BootstrapExpect: 3, ListenAddress: "127.0.0.1:0", GossipListenAddress: "127.0.0.1:0",
		}}
		n.conf = fmt.Sprintf("global:\n  evaluation_interval: %s\n  external_labels: {sender: %s}\nrule_files: ['%s']\n"+
			"alerting: {alertmanagers: [{static_configs: [{targets: ['%s']}]}]}\n", interval, id, file, am.address())
		for _, other := range nodes {
			n.cfg.Peers = append(n.cfg.Peers, other.GossipAddress())
		}
		n.start()
		t.Cleanup(n.stop)
		nodes = append(nodes, n)
	}
	return nodes
}

func (n *ruleNode) start() {
	n.t.Helper()
	n.down = false
	level := slog.LevelError + 4
	if os.Getenv("MONITOR_TEST_LOG") != "" {
		level = slog.LevelInfo
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("node", n.cfg.NodeID)
	n.registry = prometheus.NewRegistry()
	n.cfg.Logger, n.cfg.Registerer = logger, n.registry
	n.cfg.OnFatal = func(err error) { n.t.Errorf("fatal: %v", err) }
	snapshots, err := cluster.OpenSnapshots(n.cfg.Dir, logger)
	require.NoError(n.t, err)
	from, _ := snapshots.Latest()
	n.fsm, err = fsm.Open(fsm.Options{Dir: n.cfg.Dir, Logger: logger, Registerer: n.registry}, from)
	require.NoError(n.t, err)
	n.Node, err = cluster.Start(n.cfg, n.fsm, snapshots)
	require.NoError(n.t, err)
	sd, err := discovery.CreateAndRegisterSDMetrics(n.registry)
	require.NoError(n.t, err)
	parse := parser.NewParser(parser.Options{})
	n.ruler, err = monitor.NewRuler(monitor.RulerOptions{
		Cluster: n,
		Appendable: watched{
			monitor.NewAppendable(monitor.AppendableOptions{FSM: n.fsm, Proposer: n.Node, Registerer: n.registry}), n.cfg.NodeID, n.log,
		},
		Queryable:       n.fsm,
		Source:          n.fsm,
		Engine:          promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: parse}),
		Parser:          parse,
		OutageTolerance: time.Hour, ForGracePeriod: 10 * time.Minute, ResendDelay: time.Second,
		QueueCapacity: 1000, MaxBatchSize: 100, Drain: true,
		SDMetrics: sd, Logger: logger, Registerer: n.registry,
	})
	require.NoError(n.t, err)
	n.apply()
}

func (n *ruleNode) apply() {
	n.t.Helper()
	require.NoError(n.t, n.tryApply())
}

func (n *ruleNode) tryApply() error {
	conf, err := config.Load(n.conf, promslog.NewNopLogger())
	require.NoError(n.t, err)
	return n.ruler.ApplyConfig(conf, &url.URL{Scheme: "http", Host: "deucalion"})
}

func (n *ruleNode) stop() {
	if !n.down {
		n.ruler.Stop(context.Background())
		n.shutdown(context.Background())
	}
}

// crash takes the node down without any farewell to the rules, and without time to hand the leadership over.
func (n *ruleNode) crash() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n.shutdown(ctx)
	n.ruler.Stop(context.Background())
}

func (n *ruleNode) shutdown(ctx context.Context) {
	n.down = true
	_ = n.Shutdown(ctx) // the steps that had no time are errors
	require.NoError(n.t, n.fsm.Close())
}

// transfer moves the leadership away from n. It tries for as long as the machine may be to blame: Raft gives a transfer up
// after an election timeout, and a node that is busy does not answer in time. What was given up may still happen, and the
// nodes elect at their own will, too.
func (n *ruleNode) transfer() {
	n.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		err := n.TransferLeadership(n.t.Context(), "")
		leader, ok := n.Leader()
		if ok && leader != n.ID() {
			return
		}
		busy := err == nil || errors.Is(err, cluster.ErrTransfer) || errors.Is(err, cluster.ErrNoLeader) ||
			strings.Contains(err.Error(), "no other voter is alive")
		require.True(n.t, busy && time.Now().Before(end), "%s leads: %v", leader, err)
		time.Sleep(50 * time.Millisecond)
	}
}

// write commits a sample of now through n.
func (n *ruleNode) write(name string, v float64) {
	n.t.Helper()
	n.writeAt(labels.FromStrings(model.MetricNameLabel, name), time.Now(), v)
}

func (n *ruleNode) writeAt(ls labels.Labels, at time.Time, v float64) {
	n.t.Helper()
	b := n.fsm.NewBatch()
	defer b.Release()
	b.Series(nil, ls)
	b.Float(at.UnixMilli(), v)
	ctx, cancel := context.WithTimeout(n.t.Context(), 30*time.Second)
	defer cancel()
	_, err := b.Commit(ctx, n.Node)
	require.NoError(n.t, err)
}

// metric is the sum over all labels of one of n's counters or gauges.
func (n *ruleNode) metric(name string) (sum float64) {
	n.t.Helper()
	families, err := n.registry.Gather()
	require.NoError(n.t, err)
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// times are the timestamps of a series' samples.
func (n *ruleNode) times(matchers ...*labels.Matcher) (out []int64, values []float64) {
	n.t.Helper()
	q, err := n.fsm.Querier(0, 1<<60)
	require.NoError(n.t, err)
	defer q.Close()
	set := q.Select(n.t.Context(), true, nil, matchers...)
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() != 0 {
			t, v := it.At()
			out, values = append(out, t), append(values, v)
		}
	}
	require.NoError(n.t, set.Err())
	return out, values
}

func equal(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, name, value)
}

// evaluator waits for the node that evaluates the rules.
func evaluator(t *testing.T, nodes []*ruleNode) *ruleNode {
	t.Helper()
	var found *ruleNode
	require.Eventually(t, func() bool {
		for _, n := range nodes {
			if !n.down && n.ruler.Evaluates(t.Context()) == nil {
				found = n
				return true
			}
		}
		return false
	}, 30*time.Second, 10*time.Millisecond, "nobody evaluates")
	return found
}

// receiver is an Alertmanager that only writes down.
type receiver struct {
	server *httptest.Server
	gate   sync.RWMutex // who locks it holds requests up

	mu       sync.Mutex // protects the following
	requests int
	sent     []received
}

// received is one alert in one request.
type received struct {
	Labels   map[string]string `json:"labels"`
	StartsAt time.Time         `json:"startsAt"`
	EndsAt   time.Time         `json:"endsAt"`
	at       time.Time
}

func (r received) resolved() bool { return !r.EndsAt.After(r.at) }

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		var alerts []received
		if err := json.NewDecoder(req.Body).Decode(&alerts); err != nil {
			t.Error(err)
		}
		r.gate.RLock()
		defer r.gate.RUnlock()
		if req.Context().Err() != nil { // the sender has given up
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.requests++
		for _, a := range alerts {
			a.at = time.Now()
			r.sent = append(r.sent, a)
		}
	}))
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) address() string { return strings.TrimPrefix(r.server.URL, "http://") }

// count is the number of requests.
func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

// of are the notifications of an alert in order of their arrival.
func (r *receiver) of(name string) (out []received) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.sent {
		if a.Labels["alertname"] == name {
			out = append(out, a)
		}
	}
	return out
}
