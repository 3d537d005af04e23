// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ended is a process that has a number and does not run any more.
type ended struct {
	Process
	pid int
}

func (e ended) Running() bool { return false }
func (e ended) PID() int      { return e.pid }

// A packet filter is emptied when the process of its node has ended by itself, too; where the network has ended with it there is none.
func TestFlush(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	command := []string{"sh", "-c", `echo "$@" >>` + log, "sh"}
	n := &Node{Name: "n1", Process: ended{}, Enter: func() ([]string, error) { return command, nil }}
	require.NoError(t, n.flush())
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Equal(t, "iptables -w -F\n", string(text))

	command = []string{"false"}
	require.Error(t, n.flush(), "the network is there and the filter cannot be emptied")
	n.Enter = func() ([]string, error) { return nil, errNotRunning }
	require.NoError(t, n.flush(), "no network")
	calls := 0
	n.Enter = func() ([]string, error) {
		if calls++; calls > 1 {
			return nil, errNotRunning
		}
		return command, nil
	}
	require.NoError(t, n.flush(), "a network that goes meanwhile")
}

// A process may end between two signals.
func TestSignalOfAnEndedProcess(t *testing.T) {
	cmd := exec.Command("true")
	require.NoError(t, cmd.Run())
	n := &Node{Process: ended{pid: cmd.Process.Pid}}
	require.NoError(t, n.signal(syscall.SIGCONT))
}

// No fault begins before the balancer has taken all nodes up again.
func TestAwaitBalancer(t *testing.T) {
	calls, nodes := 0, 2
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Deucalion-Node", fmt.Sprintf("n%d", calls%nodes))
		calls++
	}))
	defer srv.Close()
	s := &System{Cluster: true, Balancer: srv.URL, Nodes: make([]*Node, 3)}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.ErrorContains(t, s.awaitBalancer(ctx), "[n0 n1]")
	nodes = 3
	require.NoError(t, s.awaitBalancer(t.Context()))
}
