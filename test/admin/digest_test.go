// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/admin/fill"
	"github.com/deucaliondb/deucalion/test/harness"
)

// TestDigestCommand compares the data of three nodes as an operator would, from a follower.
func TestDigestCommand(t *testing.T) {
	c := harness.New(t)
	n, cl := follower(t, c)
	grid := fill.Grid{Job: "a", Series: 20, Start: time.Now().Add(-20 * time.Minute).UnixMilli(), Step: 5000, Count: 100}
	require.NoError(t, cl.Write(t.Context(), grid.Make(1)))
	out, code := deucalion(t, n, "digest")
	require.Zero(t, code, out)
	require.Regexp(t, `(?s)NODE.*n1 +ok +20 +2000.*n2 +ok +20 +2000.*n3 +ok +20 +2000.*equal at log index \d+`, out)

	var down string
	for _, other := range c.Followers(harness.Leader(t, c)) {
		if other != n {
			down = other.Name
			require.NoError(t, other.Stop())
		}
	}
	out, code = deucalion(t, n, "digest")
	require.Equal(t, 2, code, out)
	require.Regexp(t, `(?s)`+down+` +MISSING .*\n`+down+`: `, out)
}
