// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
)

// asProgram makes this test binary be the program, so that tests run real processes without building one more.
const asProgram = "DEUCALION_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// process is one running deucalion.
type process struct {
	cmd  *exec.Cmd
	log  *logBuffer
	done chan error
}

// logBuffer collects what a process writes.
type logBuffer struct {
	mu  sync.Mutex // protects buf
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// launch runs the program on loopback ports of the system's choice.
func launch(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	args = append(args, "--storage.tsdb.path="+dir)
	for _, name := range []string{"--web.listen-address=", "--cluster.listen-address=", "--cluster.gossip-listen-address="} {
		if !strings.Contains(strings.Join(args, " "), name) {
			args = append(args, name+"127.0.0.1:0")
		}
	}
	p := &process{cmd: exec.Command(os.Args[0], args...), log: &logBuffer{}, done: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), asProgram+"=1", "GOGC=")
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	require.NoError(t, p.cmd.Start())
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// exitCode waits for the end of the process.
func (p *process) exitCode(t *testing.T) int {
	t.Helper()
	select {
	case err := <-p.done:
		p.done <- err // for the cleanup
	case <-time.After(60 * time.Second):
		t.Fatalf("still running:\n%s", p.log)
	}
	return p.cmd.ProcessState.ExitCode()
}

var listening = regexp.MustCompile(`Listening for HTTP" address=(\S+)`)

// ready waits until the node serves, and returns its URL.
func (p *process) ready(t *testing.T) (base string) {
	t.Helper()
	require.Eventually(t, func() bool {
		m := listening.FindStringSubmatch(p.log.String())
		if m == nil {
			return false
		}
		base = "http://" + m[1]
		code, _, err := get(base + "/-/ready")
		return err == nil && code == 200
	}, 60*time.Second, 20*time.Millisecond, "%s", p.log)
	return base
}

func get(url string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

func write(t *testing.T, base, name string, value float64) {
	t.Helper()
	body, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: name}},
		Samples: []prompb.Sample{{Timestamp: time.Now().UnixMilli(), Value: value}},
	}}}).Marshal()
	require.NoError(t, err)
	res, err := http.Post(base+"/api/v1/write", "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, body)))
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusNoContent, res.StatusCode)
}

func TestGracefulStopKeepsTheData(t *testing.T) {
	for _, store := range []string{"wal", "boltdb"} {
		t.Run(store, func(t *testing.T) {
			dir := t.TempDir()
			p := launch(t, dir, "--raft.log-store="+store)
			write(t, p.ready(t), "kept", 42)
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
			require.Equal(t, 0, p.exitCode(t), p.log)

			p = launch(t, dir, "--raft.log-store="+store)
			code, text, err := get(p.ready(t) + "/api/v1/query?query=kept")
			require.NoError(t, err)
			require.Equal(t, 200, code)
			require.Contains(t, text, `"42"`)
			for _, name := range []string{"lock", "live", "raft", "snapshots-raft", "queries.active"} {
				_, err := os.Stat(filepath.Join(dir, name))
				require.NoError(t, err)
			}
		})
	}
}

func TestKillKeepsTheData(t *testing.T) {
	dir := t.TempDir()
	p := launch(t, dir)
	write(t, p.ready(t), "kept", 43)
	require.NoError(t, p.cmd.Process.Kill())
	require.Equal(t, -1, p.exitCode(t))
	p = launch(t, dir)
	_, text, err := get(p.ready(t) + "/api/v1/query?query=kept&consistency=linearizable")
	require.NoError(t, err)
	require.Contains(t, text, `"43"`)
}

// TestSecondSignal holds the first graceful stop up with a request that does not end.
func TestSecondSignal(t *testing.T) {
	p := launch(t, t.TempDir())
	res, err := http.Get(p.ready(t) + "/api/v1/notifications/live")
	require.NoError(t, err)
	defer res.Body.Close()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool { return strings.Contains(p.log.String(), "stopping gracefully") }, 60*time.Second, 10*time.Millisecond)
	begin := time.Now()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	require.Equal(t, 1, p.exitCode(t))
	require.Less(t, time.Since(begin), drainTimeout/2)
	require.Contains(t, p.log.String(), "second signal (interrupt)")
}

// A signal that comes after /-/quit, from a supervisor, say, does not know of it: it is the first.
func TestSignalAfterQuit(t *testing.T) {
	p := launch(t, t.TempDir(), "--web.enable-lifecycle")
	base := p.ready(t)
	res, err := http.Get(base + "/api/v1/notifications/live") // it holds the stop up
	require.NoError(t, err)
	defer res.Body.Close()
	quit, err := http.Post(base+"/-/quit", "", nil)
	require.NoError(t, err)
	require.NoError(t, quit.Body.Close())
	require.Eventually(t, func() bool { return strings.Contains(p.log.String(), "stopping gracefully") }, 60*time.Second, 10*time.Millisecond)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Zero(t, p.exitCode(t), "%s", p.log)
	require.Contains(t, p.log.String(), "Received a signal while stopping")
}

// A start may take long, and whoever wants it to end is not to wait for it. This one waits for its web configuration.
func TestSignalDuringStart(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "web.yml")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	p := launch(t, t.TempDir(), "--web.config.file="+pipe)
	require.Eventually(t, func() bool {
		f, err := os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0) // an error until there is a reader
		if err == nil {
			t.Cleanup(func() { f.Close() })
		}
		return err == nil
	}, 60*time.Second, 10*time.Millisecond, "%s", p.log)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Zero(t, p.exitCode(t), "%s", p.log)
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	base := launch(t, dir).ready(t)
	second := launch(t, dir)
	require.Equal(t, 1, second.exitCode(t))
	require.Contains(t, second.log.String(), "is in use by another process")
	code, _, err := get(base + "/-/ready")
	require.NoError(t, err)
	require.Equal(t, 200, code, "the first one must not notice")
}

func TestPortInUse(t *testing.T) {
	base := launch(t, t.TempDir()).ready(t)
	dir := t.TempDir()
	second := launch(t, dir, "--web.listen-address="+strings.TrimPrefix(base, "http://"))
	require.Equal(t, 1, second.exitCode(t))
	require.Contains(t, second.log.String(), "address already in use")
	_, err := os.Stat(filepath.Join(dir, "raft"))
	require.ErrorIs(t, err, os.ErrNotExist, "it must not have touched the cluster")
}

func TestStatusOfAProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yml")
	require.NoError(t, os.WriteFile(file, []byte("global: {external_labels: {dc: x}}\nstorage: {tsdb: {out_of_order_time_window: 10m}}\n"), 0o600))
	base := launch(t, t.TempDir(), "--config.file="+file, "--node.id=n1", "--storage.tsdb.retention.size=1GB").ready(t)
	var flags struct{ Data map[string]string }
	_, text, err := get(base + "/api/v1/status/flags")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(text), &flags))
	require.Equal(t, "n1", flags.Data["node.id"])
	require.Equal(t, "1GiB", flags.Data["storage.tsdb.retention.size"])
	require.Equal(t, "5m", flags.Data["query.lookback-delta"])
	require.NotContains(t, flags.Data, "help")
	for path, want := range map[string][]string{
		"/api/v1/status/config":      {"dc: x", "out_of_order_time_window: 10m"},
		"/api/v1/status/runtimeinfo": {`"storageRetention":"1GiB"`, `"GOGC":"75"`},
		"/api/v1/status/buildinfo":   {`"version":"3.15.0+deucalion.`},
		"/api/v1/features":           {`"promql_functions"`, `"server_mode":true`},
		"/api/v1/cluster":            {`"leader":"n1"`},
		"/metrics":                   {"deucalion_build_info{", "go_goroutines", "process_cpu_seconds_total", "prometheus_engine_queries_concurrent_max 20"},
	} {
		_, text, err := get(base + path)
		require.NoError(t, err)
		for _, w := range want {
			require.True(t, strings.Contains(text, w), "%s: no %s", path, w)
		}
	}
}

// TestThreeNodes runs a cluster and writes and reads on each of its nodes.
func TestThreeNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three processes")
	}
	gossip := make([]string, 3)
	for i := range gossip {
		gossip[i] = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	}
	var nodes []*process
	for i := range gossip {
		args := []string{"--cluster.bootstrap-expect=3", "--web.enable-admin-api", fmt.Sprintf("--node.id=n%d", i), "--cluster.gossip-listen-address=" + gossip[i]}
		for _, peer := range gossip {
			args = append(args, "--cluster.peer="+peer)
		}
		nodes = append(nodes, launch(t, t.TempDir(), args...))
	}
	var bases []string
	for _, p := range nodes {
		bases = append(bases, p.ready(t))
	}
	for i, base := range bases {
		write(t, base, fmt.Sprintf("m%d", i), float64(i))
	}
	for _, base := range bases {
		code, text, err := get(base + `/api/v1/query?query=count({__name__=~"m."})&consistency=linearizable`)
		require.NoError(t, err)
		require.Equal(t, 200, code, text)
		require.Contains(t, text, `"3"`)
	}
	for i, base := range bases {
		res, err := http.Post(fmt.Sprintf("%s/api/v1/admin/tsdb/delete_series?match[]=m%d", base, i), "", nil)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, 204, res.StatusCode)
		for _, other := range bases {
			_, text, err := get(fmt.Sprintf("%s/api/v1/query?query=m%d&consistency=local", other, i))
			require.NoError(t, err)
			require.Contains(t, text, `"result":[]`, "gone on every node when the call returns")
		}
	}
	for _, p := range nodes {
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
		require.Equal(t, 0, p.exitCode(t), p.log)
	}
}
