// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/fault"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

const (
	clockTargets = 12
	// clockHold is how long a clock is wrong at least.
	clockHold     = 8 * time.Second
	clockPatience = time.Minute
)

// clockSuite is a cluster on loopback whose clocks can be set off, and that scrapes and evaluates a rule every second.
type clockSuite struct {
	*testing.T
	cluster *local.Cluster
	nodes   map[string]*fault.Node
}

func newClockSuite(t *testing.T) *clockSuite {
	bin, clock := built.get(t)
	if !clock {
		t.Skip("the clock of DEUCALION_BIN cannot be set off")
	}
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintln(w, "answer 42")
	}))
	t.Cleanup(target.Close)
	dir := t.TempDir()
	var yaml strings.Builder
	fmt.Fprintf(&yaml, "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n", filepath.Join(dir, "rules.yml"))
	for i := range clockTargets {
		fmt.Fprintf(&yaml, "- {job_name: j%d, metrics_path: /%d, static_configs: [{targets: [%q]}]}\n", i, i, target.Listener.Addr())
	}
	rules := "groups: [{name: g, rules: [{record: 'recorded', expr: 'vector(1)'}]}]\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(yaml.String()), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rules.yml"), []byte(rules), 0o644))
	s := &clockSuite{T: t, nodes: map[string]*fault.Node{}, cluster: harness.Prepare(t, local.ClusterOptions{
		Bin: bin, Flags: []string{"--config.file=" + filepath.Join(dir, "prometheus.yml"), "--scrape.shard=spread"},
	})}
	for _, n := range s.cluster.Nodes {
		node := &fault.Node{Name: n.Name, Clock: filepath.Join(dir, n.Name+".clock")}
		s.nodes[n.Name] = node
		require.NoError(t, node.SetClock(0))
		require.NoError(t, n.Start(fault.ClockVariable+"="+node.Clock))
	}
	s.settled(time.Now())
	return s
}

// settled waits until every node is ready and has its part of the targets, all of which have been scraped since, as the
// rule has been evaluated.
func (s *clockSuite) settled(since time.Time) {
	s.Helper()
	for _, n := range s.cluster.Nodes {
		harness.WaitReady(s.T, n)
		harness.Await(s.T, clockPatience, n.Name+" to scrape", func(ctx context.Context) error {
			if n, err := s.targets(ctx, n); err != nil || n == 0 {
				return fmt.Errorf("%v targets: %w", n, err)
			}
			return s.fresh(ctx, n, since)
		})
	}
}

// targets is how many targets n scrapes.
func (s *clockSuite) targets(ctx context.Context, n *local.Server) (float64, error) {
	cl := n.Client()
	defer cl.Close()
	m, err := cl.Metrics(ctx)
	if err != nil {
		return -1, err
	}
	return m.Sum("deucalion_scrape_targets"), nil
}

// fresh asks n whether all targets and the rule have a good sample after since.
func (s *clockSuite) fresh(ctx context.Context, n *local.Server, since time.Time) error {
	cl := n.Client()
	defer cl.Close()
	after := client.Seconds(since.UnixMilli())
	for expr, want := range map[string]int{`up == 1 and timestamp(up) > ` + after: clockTargets, `timestamp(recorded) > ` + after: 1} {
		r, err := cl.Query(ctx, expr, time.Now().UnixMilli())
		if err != nil {
			return err
		}
		if len(r.Series) != want {
			return fmt.Errorf("%d of %d for %s", len(r.Series), want, expr)
		}
	}
	return nil
}

// clockWriter sends the present through one node, again and again.
type clockWriter struct {
	mu    sync.Mutex // protects the following
	taken time.Time  // when a sample was last taken
	bad   []string   // answers that no sender should get
}

func (w *clockWriter) write(ctx context.Context, n *local.Server, series string) {
	cl := n.Client()
	defer cl.Close()
	for ctx.Err() == nil {
		at := time.Now()
		body, err := client.Encode([]prompb.TimeSeries{{
			Labels: client.Labels("__name__", "written", "s", series), Samples: []prompb.Sample{{Timestamp: at.UnixMilli(), Value: 1}},
		}})
		if err == nil {
			var resp *client.Response
			if resp, err = cl.WriteBody(ctx, body); err == nil {
				w.note(at, resp)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (w *clockWriter) note(at time.Time, resp *client.Response) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case resp.Status/100 == 2:
		w.taken = at
	case resp.Status != http.StatusServiceUnavailable && len(w.bad) < 3:
		w.bad = append(w.bad, fmt.Sprintf("%d: %s", resp.Status, resp.Body))
	}
}

// refused are answers that say that a sample should not be sent again.
func (w *clockWriter) refused() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.bad)
}

func (w *clockWriter) takenAfter(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.taken.After(t) {
		return fmt.Errorf("nothing taken since %s: %q", t, w.bad)
	}
	return nil
}

// TestClock sets the clock of one node off: nobody's correct samples are refused, nothing from the future is stored, and
// the others do what the node did.
func TestClock(t *testing.T) {
	s := newClockSuite(t)
	for i, c := range []struct {
		by     time.Duration
		leader bool
	}{{2 * time.Hour, false}, {-2 * time.Hour, false}, {5 * time.Minute, true}, {2 * time.Hour, true}, {-2 * time.Hour, true}} {
		leader := harness.Leader(t, s.cluster)
		victim, what := leader, "leader"
		if !c.leader {
			victim, what = s.cluster.Followers(leader)[0], "follower"
		}
		if !t.Run(fmt.Sprintf("%s by %s", what, c.by), func(t *testing.T) {
			(&clockSuite{t, s.cluster, s.nodes}).wrong(victim, c.by, fmt.Sprint(i))
		}) {
			return
		}
	}
}

// wrong sets the clock of victim off and right again, while samples are written through all nodes.
func (s *clockSuite) wrong(victim *local.Server, by time.Duration, series string) {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	writers := map[string]*clockWriter{}
	for _, n := range s.cluster.Nodes {
		w := &clockWriter{}
		writers[n.Name] = w
		running.Go(func() { w.write(ctx, n, n.Name+"-"+series) })
	}
	taken := func(since time.Time, but *local.Server) {
		s.Helper()
		for _, n := range s.cluster.Nodes {
			if n != but {
				harness.Await(s.T, clockPatience, n.Name+" to take samples", func(context.Context) error { return writers[n.Name].takenAfter(since) })
			}
		}
	}
	taken(time.Now(), nil)

	jumped := time.Now()
	require.NoError(s, s.nodes[victim.Name].SetClock(by))
	time.Sleep(time.Until(jumped.Add(clockHold)))
	refusesNothing := func() {
		s.Helper()
		for _, n := range s.cluster.Nodes {
			require.Empty(s, writers[n.Name].refused(), "refused by %s", n.Name)
		}
	}
	refusesNothing()
	s.stepsAside(victim)
	since := time.Now()
	taken(since, victim)
	for _, n := range s.cluster.Followers(victim) {
		harness.Await(s.T, clockPatience, "the others to scrape and to evaluate", func(ctx context.Context) error { return s.fresh(ctx, n, since) })
	}

	since = time.Now()
	require.NoError(s, s.nodes[victim.Name].SetClock(0))
	taken(since, nil)
	s.settled(since)
	cancel()
	running.Wait()
	refusesNothing()
	for _, n := range s.cluster.Nodes {
		cl := n.Client()
		data, err := cl.Read(s.Context(), time.Now().Add(30*time.Second).UnixMilli(), 1<<50,
			&prompb.LabelMatcher{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: ".+"})
		cl.Close()
		require.NoError(s, err)
		require.Empty(s, data, "the future, on %s", n.Name)
	}
}

// stepsAside waits until n says that its clock is wrong, and neither leads nor scrapes.
func (s *clockSuite) stepsAside(n *local.Server) {
	s.Helper()
	cl := n.Client()
	defer cl.Close()
	harness.Await(s.T, clockPatience, n.Name+" to step aside", func(ctx context.Context) error {
		resp, err := cl.Do(ctx, http.MethodGet, "/-/ready", nil, nil)
		if err != nil {
			return err
		}
		if resp.Status != http.StatusServiceUnavailable || !strings.Contains(string(resp.Body), "the clock of this node is wrong") {
			return fmt.Errorf("%d: %s", resp.Status, resp.Body)
		}
		if t, err := s.targets(ctx, n); err != nil || t > 0 {
			return fmt.Errorf("scrapes %v targets: %w", t, err)
		}
		if leader, err := s.cluster.Leader(ctx); err != nil || leader == n {
			return errors.Join(err, errors.New("it may lead"))
		}
		return nil
	})
}
