// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package damage_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/ledger"
	"github.com/deucaliondb/deucalion/test/local"
)

func TestMain(m *testing.M) { harness.Main(m) }

var errNotYet = errors.New("not yet")

// load starts writers to all nodes.
func load(t *testing.T, c *local.Cluster, l *ledger.Ledger) *ledger.Writers {
	var targets []*client.Client
	for _, n := range c.Nodes {
		cl := n.Client()
		t.Cleanup(cl.Close)
		targets = append(targets, cl)
	}
	w := l.StartWriters(ledger.Load{Targets: targets, Writers: 3, Series: 10, Samples: 5, Interval: 20 * time.Millisecond, Seed: 1, Extras: true})
	t.Cleanup(w.Stop)
	return w
}

// progress waits for n more acknowledged writes.
func progress(t *testing.T, l *ledger.Ledger, n int) {
	t.Helper()
	want := l.Acks() + n
	harness.Await(t, 60*time.Second, fmt.Sprintf("%d more acknowledged writes", n), func(context.Context) error {
		if l.Acks() < want {
			return errNotYet
		}
		return nil
	})
}

// check holds the data of all nodes against the book and against each other. Nobody may be writing.
func check(t *testing.T, c *local.Cluster, l *ledger.Ledger) {
	t.Helper()
	require.Empty(t, l.Faults(), "answers other than 2xx, 503 and broken connections")
	digests := map[string]string{}
	for _, n := range c.Nodes {
		for _, level := range []string{client.Linearizable, client.Local} {
			data, err := read(t.Context(), n, level)
			require.NoError(t, err, "%s data of %s", level, n.Name)
			require.Empty(t, l.Check(data, 10), "%s data of %s", level, n.Name)
			digests[n.Name] = data.Digest()
		}
	}
	for _, n := range c.Nodes {
		require.Equal(t, digests[c.Nodes[0].Name], digests[n.Name], "digests: %v", digests)
	}
	require.Empty(t, l.CheckExtras(harness.Same(t, c)))
}

func read(ctx context.Context, n *local.Server, level string) (client.Data, error) {
	cl := n.Client().At(level)
	defer cl.Close()
	return cl.ReadAll(ctx)
}

// watch reads what n has while it comes back, until it is ready: that may be incomplete, but not wrong.
func watch(t *testing.T, n *local.Server, l *ledger.Ledger) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- n.WaitReady(ctx) }()
	for {
		if data, err := read(ctx, n, client.Local); err == nil {
			for _, finding := range l.Check(data, 1<<20) {
				require.True(t, strings.HasPrefix(finding, "acknowledged sample lost"), "%s: %s", n.Name, finding)
			}
		}
		select {
		case err := <-ready:
			if !errors.Is(err, local.ErrExited) { // else it is about to repair itself
				require.NoError(t, err)
			}
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// supervise does what systemd does: a node that has found a damaged block while it ran ends, and repairs itself when it
// is started again. Returns when all of its data can be read.
func supervise(t *testing.T, n *local.Server) {
	t.Helper()
	harness.Await(t, 90*time.Second, "readable data of "+n.Name, func(ctx context.Context) error {
		if !n.Running() {
			t.Logf("%s is started again", n.Name)
			if err := n.Start(); err != nil {
				return err
			}
		}
		if err := n.WaitReady(ctx); err != nil {
			return fmt.Errorf("%w: %v", errNotYet, err) // ErrExited would end the wait
		}
		_, err := read(ctx, n, client.Local)
		return err
	})
}

// sum adds up a metric of a node.
func sum(ctx context.Context, n *local.Server, name string) (float64, error) {
	cl := n.Client()
	defer cl.Close()
	m, err := cl.Metrics(ctx)
	return m.Sum(name), err
}

func awaitMetric(t *testing.T, n *local.Server, name string, want float64) {
	t.Helper()
	harness.Await(t, 60*time.Second, fmt.Sprintf("%s of %s to be %v", name, n.Name, want), func(ctx context.Context) error {
		v, err := sum(ctx, n, name)
		if err == nil && v != want {
			err = fmt.Errorf("%w: %v", errNotYet, v)
		}
		return err
	})
}

// logSize is where the log of n ends now.
func logSize(t *testing.T, n *local.Server) int {
	t.Helper()
	b, err := os.ReadFile(n.Log)
	require.NoError(t, err)
	return len(b)
}

// awaitLine waits for a line with all texts in the log of n behind mark.
func awaitLine(t *testing.T, n *local.Server, mark int, texts ...string) {
	t.Helper()
	harness.Await(t, 60*time.Second, fmt.Sprintf("a line with %q in the log of %s", texts, n.Name), func(context.Context) error {
		b, err := os.ReadFile(n.Log)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b[mark:])) {
			if !slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(line, s) }) {
				return nil
			}
		}
		return errNotYet
	})
}

// awaitLog waits for a line in the log of n that the newest run has written, and tells when it was seen.
func awaitLog(t *testing.T, n *local.Server, text string) (seen time.Time) {
	t.Helper()
	harness.Await(t, 120*time.Second, fmt.Sprintf("%q in the log of %s", text, n.Name), func(context.Context) error {
		b, err := os.ReadFile(n.Log)
		if err == nil && !strings.Contains(string(b), text) {
			err = errNotYet
		}
		seen = time.Now()
		return err
	})
	return seen
}

// awaitWrite waits for the acknowledgement of a write that began after t0, and tells when it came.
func awaitWrite(t *testing.T, l *ledger.Ledger, t0 time.Time) (end time.Time) {
	t.Helper()
	harness.Await(t, 60*time.Second, "a write", func(context.Context) error {
		var ok bool
		if end, ok = l.AckedSince(t0); !ok {
			return errNotYet
		}
		return nil
	})
	return end
}
