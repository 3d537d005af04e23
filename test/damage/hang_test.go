// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package damage_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/internal/fault"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/ledger"
	"github.com/deucaliondb/deucalion/test/local"
)

// TestHungDisk makes the log of the leader hang for a minute: it must give the leadership up within the deadline of a
// write and the time of two elections, for one may have no winner, and the others go on.
func TestHungDisk(t *testing.T) {
	const writeDeadline, election = 5 * time.Second, 8 * time.Second
	dir := t.TempDir()
	c := harness.Prepare(t, local.ClusterOptions{Bin: faulty(t, dir), Dir: dir})
	harness.Start(t, c)
	l := ledger.New("hang")
	w := load(t, c, l)
	progress(t, l, 20)

	// The node that is to hang comes back with the fault, and gets the leadership before it has written that often.
	w.Pause()
	victim := c.Followers(harness.Leader(t, c))[0]
	require.NoError(t, victim.Stop())
	arm(t, dir, fmt.Sprintf("%s=sleep:60s@100", fault.LogHang))
	require.NoError(t, victim.Start())
	harness.Start(t, c)
	arm(t, dir, "")
	for harness.Leader(t, c) != victim {
		leader := harness.Leader(t, c)
		require.NoError(t, leader.Stop())
		harness.Start(t, c)
	}
	w.Resume()
	reached := awaitLog(t, victim, "fault point "+string(fault.LogHang)+" reached")
	end := awaitWrite(t, l, reached)
	t.Logf("next write acknowledged %s after the disk began to hang", end.Sub(reached).Round(time.Millisecond))
	require.Less(t, end.Sub(reached), writeDeadline+election)
	awaitLog(t, victim, "has been hanging")
	<-victim.Process().Done()
	harness.Start(t, c)
	progress(t, l, 50)
	w.Finish()
	check(t, c, l)
	t.Log(l.Summary())
}

// faulty builds a binary with crash points behind a script that arms them from a file.
func faulty(t *testing.T, dir string) string {
	t.Helper()
	mod, err := exec.CommandContext(t.Context(), "go", "env", "GOMOD").Output()
	require.NoError(t, err)
	bin := filepath.Join(dir, "deucalion-faults")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-tags", "faults,remove_all_sd", "-o", bin, "./cmd/deucalion")
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(mod)))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	arm(t, dir, "")
	script := filepath.Join(dir, "run")
	text := fmt.Sprintf("#!/bin/sh\nDEUCALION_FAULT=$(cat %s/arm) exec %s \"$@\"\n", dir, bin)
	require.NoError(t, os.WriteFile(script, []byte(text), 0o755))
	return script
}

// arm sets the faults of the nodes that are started from now on.
func arm(t *testing.T, dir, spec string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "arm"), []byte(spec), 0o644))
}
