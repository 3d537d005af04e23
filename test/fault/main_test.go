// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/fault"
	"github.com/deucaliondb/deucalion/test/netns"
)

// program is the binary under test, built once by whichever test needs it first.
type program struct {
	once  sync.Once
	dir   string
	bin   string
	clock bool
	err   error
}

var built program

func (p *program) get(t *testing.T) (bin string, clock bool) {
	t.Helper()
	p.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
		defer cancel()
		if p.dir, p.err = os.MkdirTemp("", "deucalion-fault-"); p.err == nil {
			p.bin, p.clock, p.err = fault.BuildSkewed(ctx, p.dir)
		}
	})
	require.NoError(t, p.err)
	return p.bin, p.clock
}

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(built.dir)
	os.Exit(code)
}

// config is the configuration of the nodes in all runs.
const config = `
global: {scrape_interval: 1s, evaluation_interval: 1s}
storage: {tsdb: {out_of_order_time_window: 30m}}
`

// namespaces lays out a system whose end is the test's, and a workload for it.
func namespaces(t *testing.T, number int, seed uint64) (*fault.Namespaces, *fault.Workload) {
	t.Helper()
	if err := netns.Check(); err != nil && os.Getenv("DEUCALION_FAULT_REQUIRED") != "1" {
		t.Skip(err)
	}
	bin, clock := built.get(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	s, err := fault.NewNamespaces(t.Context(), fault.NamespacesOptions{
		Bin: bin, Dir: dir, Number: number, Clock: clock, Flags: []string{"--config.file=" + file, fault.WorkloadFlag, fault.StalenessFlag},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range append(s.Nodes, s.Spare) {
				if log, err := os.ReadFile(n.Log); err == nil {
					t.Logf("end of the log of %s:\n%s", n.Name, log[max(0, len(log)-5000):])
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, workload(t, &s.System, seed, func(text string) error { return os.WriteFile(file, []byte(config+text), 0o644) })
}

// workload makes one whose configuration is written by configure.
func workload(t *testing.T, s *fault.System, seed uint64, configure func(text string) error) *fault.Workload {
	t.Helper()
	w, err := fault.NewWorkload(s, nil, seed)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	text, err := w.Config(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, configure(text))
	return w
}
