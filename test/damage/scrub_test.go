// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package damage_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/ledger"
)

// TestScrub flips a bit below nodes that run, in files that nobody reads meanwhile: the node finds it, names the file,
// ends, and when it is started again it has set the block aside and got it back.
func TestScrub(t *testing.T) {
	c := harness.New(t, "--storage.scrub-interval=1s")
	l := ledger.New("scrub")
	w := load(t, c, l)
	for i, file := range []string{"chunks/000001", "index"} {
		t.Run(file, func(t *testing.T) {
			n := c.Nodes[i]
			progress(t, l, 20)
			require.NoError(t, n.Stop()) // a snapshot, and with it the first block
			harness.Start(t, c)
			progress(t, l, 20)
			w.Pause() // a retry would read it
			defer w.Resume()
			before, mark := match(t, n, snapshots), logSize(t, n)
			name := flip(t, n, "live/blocks-*/0*/"+file, share(0.5))
			harness.Await(t, 90*time.Second, "the end of "+n.Name, func(context.Context) error {
				if n.Running() {
					return errNotYet
				}
				return nil
			})
			awaitLine(t, n, mark, "A block on the disk is damaged", name)
			supervise(t, n)
			awaitLine(t, n, mark, snapshotAside, "/"+file)
			requireAside(t, n, snapshots, before)
			check(t, c, l)
		})
	}
	w.Finish()
	check(t, c, l)
	t.Log(l.Summary())
}
