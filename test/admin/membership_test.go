// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/admin/fill"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// deucalion runs a command against a node, as an operator would.
func deucalion(t *testing.T, n *local.Server, args ...string) (out string, code int) {
	t.Helper()
	b, err := exec.CommandContext(t.Context(), os.Getenv("DEUCALION_BIN"), append(args, "--url=http://"+n.Addr)...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(b), exit.ExitCode()
	}
	require.NoError(t, err)
	return string(b), 0
}

// awaitPeers waits until every running node's list matches pattern.
func awaitPeers(t *testing.T, c *local.Cluster, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		harness.Await(t, 60*time.Second, "the peers of "+n.Name, func(context.Context) error {
			if out, code := deucalion(t, n, "peers"); code != 0 || !re.MatchString(out) {
				return fmt.Errorf("exit code %d: %s", code, out)
			}
			return nil
		})
	}
}

// transferTo moves the leadership as an operator would, who tries again when a node was too busy to take it or to answer.
func transferTo(t *testing.T, asked, n *local.Server) (out string) {
	t.Helper()
	harness.Await(t, 60*time.Second, "the transfer to "+n.Name, func(context.Context) error {
		var code int
		if out, code = deucalion(t, asked, "transfer-leader", "--id="+n.Name); code != 0 {
			require.Regexp(t, "leadership not transferred|no leader|does not answer", out)
			return errors.New(out)
		}
		return nil
	})
	return out
}

func TestTransferLeaderCommand(t *testing.T) {
	c := harness.New(t)
	for range 2 {
		n, cl := follower(t, c)
		require.Equal(t, "node "+n.Name+" leads\n", transferTo(t, n, n))
		require.Equal(t, n, harness.Leader(t, c))
		require.NoError(t, cl.Write(t.Context(), fill.Grid{Job: "a", Series: 2, Start: time.Now().UnixMilli(), Step: 1, Count: 2}.Make(1)))
	}
	old := harness.Leader(t, c)
	n, _ := follower(t, c)
	harness.Await(t, 60*time.Second, "another leader", func(context.Context) error {
		out, code := deucalion(t, n, "transfer-leader")
		if harness.Leader(t, c) == old { // what has failed may still happen
			return fmt.Errorf("exit code %d: %s", code, out)
		}
		return nil
	})
	out, code := deucalion(t, n, "transfer-leader", "--id=n9")
	require.Equal(t, 1, code, out)
	require.Contains(t, out, "404 Not Found")

	// A leader that hangs is not waited for: the others elect, and one of them has the leadership then.
	old = harness.Leader(t, c)
	n, _ = follower(t, c)
	require.NoError(t, old.Pause())
	defer func() { require.NoError(t, old.Resume()) }()
	begin := time.Now()
	out = transferTo(t, n, n)
	t.Logf("%s after %s", out, time.Since(begin))
}

// TestRemovePeerCommand kills a node and removes it from the cluster, which goes on as one of two. Then the node comes
// back, once with its data and once without, and counts again.
func TestRemovePeerCommand(t *testing.T) {
	c := harness.New(t)
	gone := c.Node("n3")
	if harness.Leader(t, c) == gone {
		transferTo(t, gone, c.Node("n1"))
	}
	n := c.Node("n2")
	cl := n.Client()
	defer cl.Close()
	model := client.Data{}
	rows := uint64(0)
	write := func() {
		rows++
		g := fill.Grid{Job: fmt.Sprint("job", rows), Series: 10, Start: time.Now().Add(-10 * time.Minute).UnixMilli(), Step: 5000, Count: 50}.Make(rows)
		require.NoError(t, cl.Write(t.Context(), g))
		fill.Merge(model, g)
	}
	out, code := deucalion(t, n, "remove-peer", "--id=n3")
	require.Equal(t, 1, code, out)
	require.Contains(t, out, "409 Conflict") // it is alive

	for _, wiped := range []bool{false, true} {
		write()
		require.NoError(t, gone.Kill())
		write()
		harness.Await(t, 60*time.Second, "the removal", func(context.Context) error {
			if out, code := deucalion(t, n, "remove-peer", "--id=n3"); code != 0 {
				return errors.New(out)
			}
			return nil
		})
		awaitPeers(t, c, `(?s)^NODE[^\n]*\nn1 +[^\n]*\nn2 +[^\n]*\nleader n`)
		write()
		if wiped {
			require.NoError(t, os.RemoveAll(gone.Dir))
		}
		harness.Start(t, c)
		awaitPeers(t, c, `n3 +(follower|leader) +true +true .* 0 +-\n`)
		digest, err := cl.Digest(t.Context())
		require.NoError(t, err)
		require.Equal(t, "equal", digest.Result)
		require.Len(t, digest.Nodes, 3)
		requireData(t, c, client.Local, model, fmt.Sprintf("back, wiped %t", wiped))
	}

	// Its vote counts: one of the others is not needed any more.
	require.NoError(t, c.Node("n1").Kill())
	harness.Await(t, 60*time.Second, "a write", func(ctx context.Context) error {
		return cl.Write(ctx, fill.Grid{Job: "last", Series: 1, Start: time.Now().UnixMilli(), Step: 1, Count: 1}.Make(99))
	})
}
