// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/internal/filetest"
)

// An import whose index finds no room on the disk waits for it, as it does for the room of its blocks: an error would stop
// the state machine. It can be stopped meanwhile.
func TestImportMarkWaitsForRoom(t *testing.T) {
	dir := t.TempDir()
	filetest.Mount(t, dir, "size=1m")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	m := &imports{node: &Node{ctx: ctx}, dir: dir, logger: discard, metrics: testMetrics(), used: map[string]time.Time{}}
	x := fsm.Import{ID: "0123456789abcdef"}
	require.NoError(t, os.Mkdir(m.path(x.ID), 0o755))
	require.NoError(t, m.finish(x))
	full := filepath.Join(dir, "full")
	filetest.Fill(t, full)

	ended := make(chan error, 1)
	ensure := func() {
		_, err := m.Ensure(ctx, 7, x)
		ended <- err
	}
	go ensure()
	select {
	case err := <-ended:
		t.Fatalf("it has not waited: %v", err)
	case <-time.After(time.Second):
	}
	require.Equal(t, 1.0, testutil.ToFloat64(m.metrics.importWaiting))
	require.NoError(t, os.Remove(full))
	require.NoError(t, <-ended)
	require.Zero(t, testutil.ToFloat64(m.metrics.importWaiting))
	index, ok := m.marked(x.ID)
	require.True(t, ok)
	require.EqualValues(t, 7, index)

	require.NoError(t, os.Remove(filepath.Join(m.path(x.ID), importIndex)))
	filetest.Fill(t, full)
	go ensure()
	stop()
	require.ErrorIs(t, <-ended, ErrStopped)
}
