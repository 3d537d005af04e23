// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package local_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/local"
)

// shell runs a script as a process once the script has said "up".
func shell(t *testing.T, script string) (*local.Process, string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	p, err := local.StartProcess("/bin/sh", []string{"-c", script}, log)
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Kill() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, local.Poll(ctx, func(context.Context) error {
		text, err := os.ReadFile(log)
		if err == nil && !strings.Contains(string(text), "up") {
			err = errors.New("not up yet")
		}
		return err
	}))
	return p, log
}

func TestStopIsGraceful(t *testing.T) {
	p, log := shell(t, `trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done`)
	require.NoError(t, p.Stop(10*time.Second))
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Contains(t, string(text), "bye")
	exited, err := p.Exited()
	require.True(t, exited)
	require.NoError(t, err)
}

func TestStopTellsOfABadExit(t *testing.T) {
	p, _ := shell(t, `trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done`)
	require.ErrorContains(t, p.Stop(10*time.Second), "exit status 3")
}

func TestStopKillsInTheEnd(t *testing.T) {
	p, _ := shell(t, `trap '' TERM; echo up; while :; do sleep 0.05; done`)
	require.ErrorIs(t, p.Stop(100*time.Millisecond), local.ErrSlowStop)
	exited, _ := p.Exited()
	require.True(t, exited)
}

func TestKillReachesAFrozenProcess(t *testing.T) {
	p, _ := shell(t, `echo up; sleep 1000`)
	require.NoError(t, p.Signal(syscall.SIGSTOP))
	require.NoError(t, p.Kill())
	require.NoError(t, p.Kill(), "killing the dead is harmless")
}

func TestStartTellsOfAMissingProgram(t *testing.T) {
	_, err := local.StartProcess("/nonexistent", nil, filepath.Join(t.TempDir(), "log"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A program that ends before it is ready must not be waited for.
func TestWaitReadyNoticesTheEnd(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "false")
	require.NoError(t, os.WriteFile(bin, []byte("#!/bin/sh\nexit 7\n"), 0o755))
	c, err := local.NewCluster(local.ClusterOptions{Bin: bin, Dir: t.TempDir()})
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.ErrorIs(t, c.Start(ctx), local.ErrExited)
	require.NoError(t, ctx.Err())
}
