// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/fault"
	"github.com/deucaliondb/deucalion/test/harness"
)

// composeConfig has what the nodes are to take from the options: a rule, and a target of this process.
const composeConfig = `
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules/fault.yml]
scrape_configs:
- job_name: test
  static_configs: [{targets: ['%s']}]
- job_name: deucalion
  static_configs: [{targets: ['node1:9090', 'node2:9090', 'node3:9090']}]
`

const composeRules = `
groups:
- name: fault
  rules: [{record: recorded, expr: vector(42)}]
`

// composeRun is the system under test and what was written to it.
type composeRun struct {
	*fault.Compose
	system *fault.System
	sent   []string
}

func requireEngine(t *testing.T) {
	t.Helper()
	if os.Getenv("DEUCALION_COMPOSE") != "1" {
		t.Skip("needs a Docker Engine: make compose-test")
	}
}

func mounts(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	return string(text)
}

func startCompose(t *testing.T, o fault.ComposeOptions) *composeRun {
	t.Helper()
	o.Dir = t.TempDir()
	c, err := fault.NewCompose(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs(20))
		}
		require.NoError(t, c.Close())
		require.FileExists(t, filepath.Join(o.Dir, "node1.log"))
		require.NotContains(t, mounts(t), o.Dir)
	})
	return &composeRun{Compose: c, system: c.System()}
}

// TestComposeSystem does to the containers of deploy/compose what the fault suite does, each once.
func TestComposeSystem(t *testing.T) {
	requireEngine(t)
	r := startCompose(t, fault.ComposeOptions{
		Config: fmt.Sprintf(composeConfig, "172.30.93.1:9998"), Rules: composeRules,
		Flags: []string{"--web.enable-admin-api", "--storage.min-free=64MiB"},
	})
	require.Len(t, r.system.Nodes, 3)
	for _, n := range r.system.Nodes {
		r.awaitReady(t, n)
		require.True(t, n.Running())
		require.NoError(t, n.Start(), "of one that runs")
	}
	for i := range r.system.Nodes {
		r.awaitBalancer(t, i, "UP")
	}
	r.send(t)
	r.awaitEverywhere(t)
	for _, part := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"surroundings", r.surroundings},
		{"options", r.options},
		{"kill", r.kill},
		{"reload", r.reload},
		{"crash", r.crash},
		{"crash loop", r.crashLoop},
		{"pause", r.pause},
		{"unplug", r.unplug},
		{"stop", r.stop},
		{"packet filter", r.filter},
		{"disk", r.fill},
		{"wipe", r.wipe},
	} {
		if !t.Run(part.name, part.f) {
			return
		}
		r.send(t)
		r.awaitEverywhere(t)
	}
	cl := client.New(r.system.Balancer)
	defer cl.Close()
	harness.Await(t, time.Minute, "equal digests", func(ctx context.Context) error {
		d, err := cl.Digest(ctx)
		if err == nil && d.Result != "equal" {
			err = fmt.Errorf("%s: %v", d.Result, d.Differing)
		}
		return err
	})
}

// TestComposeFaults does faults to the containers of deploy/compose.
func TestComposeFaults(t *testing.T) {
	requireEngine(t)
	c := startCompose(t, fault.ComposeOptions{
		Config: config, Rules: "groups: []",
		Flags: []string{"--web.enable-admin-api", "--storage.min-free=64MiB", fault.WorkloadFlag, fault.StalenessFlag},
	})
	o := options(t, c.system)
	w, err := fault.NewWorkload(c.system, nil, o.Seed)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	require.NoError(t, c.Configure(config+w.Sections("/etc/prometheus/rules/fault.yml"), w.Alerts.Rules()))
	for _, n := range c.system.Nodes {
		c.awaitReady(t, n)
		cl := n.Client()
		_, err := cl.Post(t.Context(), "/-/reload", nil)
		require.NoError(t, err)
		cl.Close()
	}
	o.Parts = w.Parts()
	o.Floor = min(o.Floor, 0.1) // the engine takes its time to start a container, and a fault lasts as long
	r, err := fault.Run(t.Context(), o)
	require.NoError(t, err)
	publish(t, r, "compose")
}

// TestComposeStack starts what a user gets, with the configuration of deploy/compose: what Prometheus is to scrape it
// scrapes, Grafana apart, its alerts arrive at Alertmanager, and the ports are published.
func TestComposeStack(t *testing.T) {
	requireEngine(t)
	// One that is never closed, as that of a process that is killed: the next one removes it.
	abandoned := t.TempDir()
	first, err := fault.NewCompose(t.Context(), fault.ComposeOptions{Dir: abandoned})
	require.NoError(t, err)
	require.NoError(t, first.System().Nodes[0].Pause())
	require.NoError(t, first.System().Nodes[1].Unplug())
	r := startCompose(t, fault.ComposeOptions{})
	require.NotContains(t, mounts(t), abandoned)
	for _, n := range r.system.Nodes {
		r.awaitReady(t, n)
	}
	for port := 9090; port <= 9093; port++ {
		cl := client.New(fmt.Sprintf("http://127.0.0.92:%d", port))
		defer cl.Close()
		for job, targets := range map[string]int{"deucalion": 3, "haproxy": 1, "node": 1, "alertmanager": 1} {
			query := fmt.Sprintf("count(up{job=%q} == 1) == %d", job, targets)
			harness.Await(t, 2*time.Minute, query, func(ctx context.Context) error { return requireResult(ctx, cl, query) })
		}
	}
	cl := client.New("http://127.0.0.92:9094")
	defer cl.Close()
	harness.Await(t, 2*time.Minute, "an alert", func(ctx context.Context) error {
		resp, err := cl.Get(ctx, "/api/v2/alerts", nil)
		if err == nil && !strings.Contains(string(resp.Body), "DeucalionDeadMansSwitch") {
			err = fmt.Errorf("alerts are %s", resp.Body)
		}
		return err
	})
}

// surroundings are the other containers, on the network of the clients.
func (r *composeRun) surroundings(t *testing.T) {
	for service, path := range map[string]string{"node-exporter": ":9100/metrics", "alertmanager": ":9093/-/ready", "haproxy": ":8404/metrics"} {
		harness.Await(t, time.Minute, service, func(ctx context.Context) error {
			ip, err := r.Addr(ctx, service)
			if err != nil {
				return err
			}
			return get(ctx, "http://"+ip+path)
		})
	}
}

// options are in force: flags, rules, configuration, and a target that this process listens on.
func (r *composeRun) options(t *testing.T) {
	require.Equal(t, "172.30.93.1", r.system.Listen)
	l, err := net.Listen("tcp", r.system.Listen+":9998")
	require.NoError(t, err)
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "of_this_process 1\n")
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	defer func() {
		require.NoError(t, srv.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	}()
	for _, query := range []string{"of_this_process", "recorded == 42", `count(up{job="deucalion"} == 1) == 3`} {
		for _, n := range r.system.Nodes {
			cl := n.Client()
			defer cl.Close()
			harness.Await(t, time.Minute, query, func(ctx context.Context) error { return requireResult(ctx, cl, query) })
		}
	}
}

func (r *composeRun) kill(t *testing.T) {
	n := r.system.Nodes[0]
	require.NoError(t, n.Pause(), "so that it is killed while it is frozen")
	require.NoError(t, n.Kill())
	r.requireLeftOut(t, 0)
	require.False(t, n.Running())
	require.Zero(t, n.PID())
	require.NoError(t, n.Kill(), "of one that does not run")
	r.send(t)
	require.NoError(t, n.Start())
	r.awaitReady(t, n)
	r.awaitBalancer(t, 0, "UP")
}

// reload has the nodes take up a configuration that an editor has put in the place of theirs, as the guide says. They are
// started again afterwards when they end.
func (r *composeRun) reload(t *testing.T) {
	require.NoError(t, r.Configure(fmt.Sprintf(composeConfig, "172.30.93.1:9998"), strings.Replace(composeRules, "42", "43", 1)))
	for _, n := range r.system.Nodes {
		cl := n.Client()
		defer cl.Close()
		harness.Await(t, time.Minute, "a reload", func(ctx context.Context) error {
			_, err := cl.Post(ctx, "/-/reload", nil)
			return err
		})
	}
	for _, n := range r.system.Nodes {
		cl := n.Client()
		defer cl.Close()
		harness.Await(t, time.Minute, "the rule", func(ctx context.Context) error { return requireResult(ctx, cl, "recorded == 43") })
	}
	for _, n := range r.system.Nodes {
		before := n.PID()
		end(t, n)
		awaitOther(t, n, before)
		r.awaitReady(t, n)
	}
}

// end kills a node's process behind the engine's back.
func end(t *testing.T, n *fault.Node) {
	t.Helper()
	p, err := os.FindProcess(n.PID())
	require.NoError(t, err)
	require.NoError(t, p.Kill())
}

// awaitOther waits until a node has another process than that.
func awaitOther(t *testing.T, n *fault.Node, than int) {
	t.Helper()
	harness.Await(t, time.Minute, "a new process", func(context.Context) error {
		if pid := n.PID(); pid == 0 || pid == than {
			return fmt.Errorf("pid %d, was %d", pid, than)
		}
		return nil
	})
}

// crash ends a node's process, which the engine starts again, and once more as that comes to know of it.
func (r *composeRun) crash(t *testing.T) {
	n := r.system.Nodes[1]
	before := n.PID()
	end(t, n)
	awaitOther(t, n, before)
	require.NoError(t, n.Start())
	r.awaitReady(t, n)
	end(t, n)
	require.NoError(t, n.Kill(), "of one that has just ended")
	require.False(t, n.Running())
	require.NoError(t, n.Start())
	r.awaitReady(t, n)
	r.awaitBalancer(t, 1, "UP")
}

// crashLoop lets a node end again and again, for it may not use its disk.
func (r *composeRun) crashLoop(t *testing.T) {
	n := r.system.Nodes[1]
	require.NoError(t, n.Kill())
	require.NoError(t, os.Chmod(n.Dir, 0))
	waits := func(context.Context) error {
		if n.Running() {
			return errors.New("it runs")
		}
		return nil
	}
	require.NoError(t, n.Start())
	harness.Await(t, time.Minute, "the engine to wait", waits)
	require.NoError(t, n.Kill(), "while there is no process")
	require.NoError(t, n.Start())
	harness.Await(t, time.Minute, "the engine to wait", waits)
	require.NoError(t, os.Chmod(n.Dir, 0o755))
	require.NoError(t, n.Start())
	r.awaitReady(t, n)
	r.awaitBalancer(t, 1, "UP")
}

func (r *composeRun) pause(t *testing.T) {
	n := r.system.Nodes[1]
	require.NoError(t, n.Pause())
	r.requireLeftOut(t, 1)
	require.True(t, n.Running())
	r.send(t)
	require.NoError(t, n.Resume())
	require.NoError(t, n.Resume(), "of one that is not frozen")
	r.awaitReady(t, n)
	r.awaitBalancer(t, 1, "UP")
}

func (r *composeRun) unplug(t *testing.T) {
	n := r.system.Nodes[2]
	require.NoError(t, n.Unplug())
	r.requireLeftOut(t, 2)
	for _, addr := range n.Addrs {
		require.Error(t, dial(t, addr), "from this process")
	}
	require.Error(t, reach(t, r.system.Nodes[0], n, 3), "from another node")
	r.send(t)
	require.NoError(t, n.Plug())
	require.NoError(t, n.Plug(), "of one that is plugged in")
	r.awaitReady(t, n)
	r.awaitBalancer(t, 2, "UP")
	require.NoError(t, reach(t, r.system.Nodes[0], n, 30))

	// One that is started without its networks has them again after Plug.
	require.NoError(t, n.Unplug())
	require.NoError(t, n.Kill())
	require.NoError(t, n.Start())
	require.NoError(t, n.Plug())
	r.awaitReady(t, n)

	// So has one that did not run.
	require.NoError(t, n.Unplug())
	require.NoError(t, n.Kill())
	require.NoError(t, n.Plug())
	require.NoError(t, n.Start())
	r.awaitReady(t, n)
}

func (r *composeRun) stop(t *testing.T) {
	n := r.system.Nodes[0]
	require.NoError(t, n.Stop())
	require.False(t, n.Running())
	_, err := n.Enter()
	require.Error(t, err)
	r.send(t)
	require.NoError(t, n.Start())
	r.awaitReady(t, n)
}

// filter cuts a node off one other by a rule in its own network.
func (r *composeRun) filter(t *testing.T) {
	a, b, c := r.system.Nodes[0], r.system.Nodes[1], r.system.Nodes[2]
	enter, err := a.Enter()
	require.NoError(t, err)
	rule := []string{"INPUT", "--source", b.Addrs[0], "--jump", "DROP"}
	require.NoError(t, command(t, enter, append([]string{"iptables", "--append"}, rule...)...))
	require.Error(t, reach(t, b, a, 3))
	require.NoError(t, reach(t, c, a, 30))
	require.NoError(t, command(t, enter, append([]string{"iptables", "--delete"}, rule...)...))
	require.NoError(t, reach(t, b, a, 30))
	r.awaitReady(t, a)
}

// fill leaves a node too little room on its disk.
func (r *composeRun) fill(t *testing.T) {
	n := r.system.Nodes[1]
	ballast := filepath.Join(n.Dir, "ballast")
	f, err := os.Create(ballast)
	require.NoError(t, err)
	defer f.Close()
	_, err = io.Copy(f, zeros{})
	require.ErrorContains(t, err, "no space left")
	cl := n.Client()
	defer cl.Close()
	harness.Await(t, time.Minute, "node to be unready", func(ctx context.Context) error {
		resp, err := cl.Do(ctx, http.MethodGet, "/-/ready", nil, nil)
		if err == nil && resp.Status/100 == 2 {
			return errors.New("it is ready")
		}
		return nil
	})
	r.awaitBalancer(t, 1, "DOWN")
	require.NoError(t, os.Remove(ballast))
	require.NoError(t, f.Close())
	require.NoError(t, n.Start(), "if it had ended")
	r.awaitReady(t, n)
	r.awaitBalancer(t, 1, "UP")
}

// wipe removes the data of a node from outside.
func (r *composeRun) wipe(t *testing.T) {
	n := r.system.Nodes[2]
	require.NoError(t, n.Kill())
	entries, err := os.ReadDir(n.Dir)
	require.NoError(t, err)
	require.NotEmpty(t, entries)
	for _, e := range entries {
		require.NoError(t, os.RemoveAll(filepath.Join(n.Dir, e.Name())))
	}
	require.NoError(t, n.Start())
	r.awaitReady(t, n)
}

// zeros never end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
