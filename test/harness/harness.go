// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package harness is what tests on real processes share: it builds the binary once a
// run, starts clusters and stock servers that end with the test, shows their logs when
// the test fails, and fails the test when a log tells of a panic or a data race.
// Processes themselves are the business of package local.
package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/local"
)

// readyTimeout bounds every wait for a server to become ready.
const readyTimeout = 60 * time.Second

// Main builds the binary, with build tags, and runs the tests of a package; it is all that their TestMain does.
// The binary's path travels to New in DEUCALION_BIN.
func Main(m *testing.M, tags ...string) {
	os.Exit(run(m, tags))
}

func run(m *testing.M, tags []string) int {
	dir, err := os.MkdirTemp("", "deucalion-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	bin, err := local.Build(ctx, dir, "", tags...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.Setenv("DEUCALION_BIN", bin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// New starts a cluster of three nodes with flags, waits until all are ready, and ends it with the test.
func New(t *testing.T, flags ...string) *local.Cluster {
	t.Helper()
	c := Prepare(t, local.ClusterOptions{Flags: flags})
	Start(t, c)
	return c
}

// Prepare lays out a cluster that is not started yet, and ends it with the test. Without a binary it takes Main's,
// without a directory one of the test's.
func Prepare(t *testing.T, o local.ClusterOptions) *local.Cluster {
	t.Helper()
	if o.Bin == "" {
		o.Bin = os.Getenv("DEUCALION_BIN")
		require.NotEmpty(t, o.Bin, "the package's TestMain must call harness.Main")
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c, err := local.NewCluster(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for _, n := range c.Nodes {
			inspectLog(t, n)
		}
	})
	return c
}

// Start starts the nodes of c which do not run and waits until all are ready.
func Start(t *testing.T, c *local.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	require.NoError(t, c.Start(ctx))
}

// Leader waits until all running nodes agree on a leader.
func Leader(t *testing.T, c *local.Cluster) *local.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	leader, err := c.Leader(ctx)
	require.NoError(t, err)
	return leader
}

// Stock starts a stock Prometheus, waits until it is ready, and ends it with the test.
func Stock(t *testing.T, o local.StockOptions) *local.Stock {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "stock")
	}
	s, err := local.NewStock(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		inspectLog(t, s.Server)
	})
	require.NoError(t, s.Start())
	WaitReady(t, s.Server)
	return s
}

// WaitReady waits until s is ready.
func WaitReady(t *testing.T, s *local.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	require.NoError(t, s.WaitReady(ctx))
}

// Await calls f until it gives nil; after timeout the test fails with f's last error.
func Await(t *testing.T, timeout time.Duration, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	require.NoError(t, local.Poll(ctx, f), "waiting for %s", what)
}
