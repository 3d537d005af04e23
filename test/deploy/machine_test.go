// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
	"github.com/deucaliondb/deucalion/test/netns"
)

// machine has a network, processes, and an /etc, /usr/local and /var/lib of its own, and a copy of the repository to
// write into. What runs on it ends with the test.
type machine struct {
	*netns.Host
	root string // of the repository
	init string // process id of its first process
}

func startMachine(t *testing.T, host *netns.Host) *machine {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	script, err := filepath.Abs("testdata/machine.sh")
	require.NoError(t, err)
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	args := append(host.Command(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", script, dir, root)
	p, err := local.StartProcess(args[0], args[1:], log)
	require.NoError(t, err)
	m := &machine{Host: host, root: root}
	t.Cleanup(func() {
		if init, err := strconv.Atoi(m.init); err == nil { // with it all others end
			require.NoError(t, syscall.Kill(init, syscall.SIGKILL))
			<-p.Done()
		}
		require.NoError(t, p.Kill())
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(dir, "state", "*.log"))
			for _, name := range append(logs, log) {
				text, _ := os.ReadFile(name)
				t.Logf("end of %s:\n%s", name, text[max(0, len(text)-4000):])
			}
		}
	})
	harness.Await(t, time.Minute, "a machine", func(context.Context) error {
		text, err := os.ReadFile(log)
		if err != nil || !strings.Contains(string(text), "up\n") {
			return errors.Join(err, errors.New("it is not up"))
		}
		children, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "task", strconv.Itoa(p.PID()), "children"))
		m.init = strings.TrimSpace(string(children))
		return err
	})
	return m
}

// run executes commands in the repository, as the machine's root. The programs in testdata/bin come first.
func (m *machine) run(ctx context.Context, commands string) (string, error) {
	bin, err := filepath.Abs("testdata/bin")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "nsenter", "--target="+m.init, "--mount", "--net", "--pid", "bash", "-euo", "pipefail", "-c", "cd '"+m.root+"'\n"+commands)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "PATH=") }), "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) must(t *testing.T, commands string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	out, err := m.run(ctx, commands)
	require.NoError(t, err, "%s\n%s", commands, out)
	return out
}

// says waits until commands succeed and print want.
func (m *machine) says(t *testing.T, commands, want string) {
	t.Helper()
	harness.Await(t, time.Minute, commands, func(ctx context.Context) error {
		out, err := m.run(ctx, commands)
		if err == nil && !strings.Contains(out, want) {
			err = errors.New(out)
		}
		return err
	})
}
