// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compose_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
)

// bind keeps the published ports off those of other servers of the machine.
const bind = "127.0.0.90"

var names = []string{"node1", "node2", "node3"}

// engine runs the Compose file in a project of its own. There is no registry, so the image is the prebuilt one, and
// only the nodes are started.
type engine struct{ env []string }

func (e *engine) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	// Not the test's context: the project is taken down after that has ended.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, e.env
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %s: %s", name, args, out)
	return string(out)
}

func (e *engine) compose(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("docker-compose"); err == nil {
		return e.run(t, "docker-compose", args...)
	}
	return e.run(t, "docker", append([]string{"compose"}, args...)...)
}

// container is what docker inspect tells of a node.
type container struct {
	State struct {
		Status   string
		ExitCode int
		Health   struct{ Status string }
	}
	Config struct {
		User   string
		Labels map[string]string
	}
}

func (e *engine) inspect(t *testing.T, node string) container {
	t.Helper()
	id := strings.TrimSpace(e.compose(t, "ps", "--quiet", node))
	var out []container
	require.NoError(t, json.Unmarshal([]byte(e.run(t, "docker", "inspect", id)), &out))
	return out[0]
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	if os.Getenv("DEUCALION_COMPOSE") != "1" {
		t.Skip("needs a Docker Engine: make compose-test")
	}
	e := &engine{env: append(os.Environ(),
		fmt.Sprintf("COMPOSE_PROJECT_NAME=deucalion-test-%d", os.Getpid()),
		"DEUCALION_TARGET=prebuilt", "DEUCALION_VERSION=test", "DEUCALION_BIND="+bind,
		"DOCKER_BUILDKIT=0", "COMPOSE_DOCKER_CLI_BUILD=0")}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	e.run(t, "make", "-C", root, "image-root", "VERSION=test")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(e.compose(t, "logs", "--tail=20"))
		}
		e.compose(t, "down", "--volumes", "--timeout", "5")
	})
	e.compose(t, append([]string{"up", "--detach", "--build"}, names...)...)
	return e
}

func nodeClient(i int) *client.Client { return client.New(fmt.Sprintf("http://%s:%d", bind, 9091+i)) }

func awaitReady(t *testing.T, i int) {
	t.Helper()
	cl := nodeClient(i)
	defer cl.Close()
	harness.Await(t, time.Minute, names[i]+" to be ready", func(ctx context.Context) error {
		_, err := cl.Get(ctx, "/-/ready", nil)
		return err
	})
}

// TestContainers starts the nodes of the Compose file, kills one and stops another: what was written is there on all.
func TestContainers(t *testing.T) {
	e := startEngine(t)
	clients := make([]*client.Client, len(names))
	for i, name := range names {
		awaitReady(t, i)
		clients[i] = nodeClient(i).At(client.Linearizable)
		t.Cleanup(clients[i].Close)
		harness.Await(t, time.Minute, name+" to be healthy", func(context.Context) error {
			if got := e.inspect(t, name).State.Health.Status; got != "healthy" {
				return fmt.Errorf("it is %s", got)
			}
			return nil
		})
		c := e.inspect(t, name)
		require.Equal(t, "65534:65534", c.Config.User)
		require.Equal(t, "test", c.Config.Labels["org.opencontainers.image.version"])
	}
	requireClusterNetwork(t, clients[0])

	send(t, clients[0], "before")
	e.compose(t, "kill", "node2")
	send(t, clients[0], "meanwhile")
	requireSeries(t, clients[2], "before", "meanwhile")

	e.compose(t, "start", "node2")
	awaitReady(t, 1)
	requireSeries(t, clients[1], "before", "meanwhile")

	e.compose(t, "stop", "node1")
	require.Zero(t, e.inspect(t, "node1").State.ExitCode, "a graceful stop")
	send(t, clients[1], "after")
	e.compose(t, "start", "node1")
	awaitReady(t, 0)
	requireSeries(t, clients[0], "before", "meanwhile", "after")
}

// requireClusterNetwork insists that the nodes call each other on the network that is theirs alone.
func requireClusterNetwork(t *testing.T, cl *client.Client) {
	t.Helper()
	var data struct {
		Nodes []struct {
			Raft   string `json:"raft_address"`
			Gossip string `json:"gossip_address"`
			HTTP   string `json:"http_address"`
		} `json:"nodes"`
	}
	require.NoError(t, cl.Data(t.Context(), "/api/v1/cluster", nil, &data))
	require.Len(t, data.Nodes, len(names))
	for i, n := range data.Nodes {
		ip := fmt.Sprintf("172.30.90.1%d", i+1)
		require.Equal(t, []string{ip + ":9190", ip + ":9191", ip + ":9090"}, []string{n.Raft, n.Gossip, n.HTTP})
	}
}

// send writes a sample of a series; a write may find that there is no leader just now.
func send(t *testing.T, cl *client.Client, name string) {
	t.Helper()
	series := []prompb.TimeSeries{{
		Labels:  client.Labels("__name__", "sent", "when", name),
		Samples: []prompb.Sample{{Timestamp: time.Now().UnixMilli(), Value: 1}},
	}}
	harness.Await(t, time.Minute, "a write", func(ctx context.Context) error { return cl.Write(ctx, series) })
}

func requireSeries(t *testing.T, cl *client.Client, want ...string) {
	t.Helper()
	var got []string
	harness.Await(t, time.Minute, "a read", func(ctx context.Context) error {
		return cl.Data(ctx, "/api/v1/label/when/values", nil, &got)
	})
	require.ElementsMatch(t, want, got)
}
