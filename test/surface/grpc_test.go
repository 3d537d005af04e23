// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package surface_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// buildOldClient compiles oldclient, which is a module of its own.
func buildOldClient(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	bin := filepath.Join(t.TempDir(), "oldclient")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", bin, ".")
	cmd.Dir = "oldclient"
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return bin
}

func callOldClient(t *testing.T, bin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, bin, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// The admin API that Prometheus 2.5 had over gRPC, through the stubs that it was released with: what a call says is
// done, is done on all nodes when it returns.
func TestOldStubs(t *testing.T) {
	bin := buildOldClient(t)
	onEach(t, func(t *testing.T, n *local.Server, others []*local.Server) {
		at := write(t, n, "m", 3)
		out := callOldClient(t, bin, n.Addr, "m", "1|2")
		match := regexp.MustCompile(`^snapshot (\d{8}T\d{6}Z-[0-9a-f]{16})\ndelete OK\ndelete InvalidArgument\nclean OK\n$`).FindStringSubmatch(out)
		require.NotNil(t, match, out)
		for _, s := range append(others, n) {
			c := s.Client().At(client.Local)
			got, err := c.Query(t.Context(), "count(m)", at.UnixMilli())
			c.Close()
			require.NoError(t, err, s.Name)
			require.Equal(t, "1", got.Series[0].Points[0].Value, s.Name)
			entries, err := os.ReadDir(filepath.Join(s.Dir, "snapshots", match[1]))
			require.NoError(t, err, s.Name)
			require.NotEmpty(t, entries, s.Name)
		}
		if len(others) == 0 {
			return
		}
		for _, s := range others {
			require.NoError(t, s.Kill())
		}
		require.Equal(t, "snapshot Unavailable\ndelete Unavailable\ndelete InvalidArgument\nclean Unavailable\n", callOldClient(t, bin, n.Addr, "m", "0"))
		for _, s := range others {
			require.NoError(t, s.Start())
		}
		for _, s := range append(others, n) {
			harness.WaitReady(t, s)
		}
	})
}
