// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/fault"
	"github.com/deucaliondb/deucalion/test/netns"
)

// TestPeersUnderFaults does to the systems for comparison what TestNamespaces does to a cluster, as far as they can have
// it, for the report. What is wrong with them fails no test. It runs when DEUCALION_FAULT_PEERS is set.
func TestPeersUnderFaults(t *testing.T) {
	if os.Getenv("DEUCALION_FAULT_PEERS") == "" {
		t.Skip("DEUCALION_FAULT_PEERS is not set")
	}
	if err := netns.Check(); err != nil {
		t.Skip(err)
	}
	for i, tc := range []struct {
		name  string
		start func(fault.PeerOptions) (*fault.Peer, error)
	}{
		{"stock", fault.NewStock},
		{"pair", fault.NewStockPair},
		{"victoria", fault.NewVictoriaMetrics},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := tc.start(fault.PeerOptions{Number: 240 + i, Dir: t.TempDir()})
			if errors.Is(err, exec.ErrNotFound) {
				t.Skip(err)
			}
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, p.Close()) })
			faultPeer(t, p, tc.name)
		})
	}
}

func faultPeer(t *testing.T, p *fault.Peer, name string) {
	t.Helper()
	require.NoError(t, p.Configure(""))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, p.Start(ctx))
	o := options(t, p.System)
	o.Epoch = 1000 // what is found ends a run, and there is something to be found
	o.Floats = true
	o.Read = func(ctx context.Context, n *fault.Node, run string) (client.Data, error) {
		for _, r := range p.Readers {
			if r.Name == n.Name {
				return r.Read(ctx, 0, 1<<50,
					&prompb.LabelMatcher{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: "ledger_.*"},
					&prompb.LabelMatcher{Type: prompb.LabelMatcher_EQ, Name: "run", Value: run})
			}
		}
		return nil, fmt.Errorf("no node %s", n.Name)
	}
	r, err := fault.Run(t.Context(), o)
	require.NoError(t, err)
	t.Log("\n" + r.Markdown())
	if dir := os.Getenv("DEUCALION_FAULT_REPORT"); dir != "" {
		require.NoError(t, r.Write(dir, name))
	}
	require.NotEmpty(t, r.Rounds)
}
