// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package kill_test

import (
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

func TestMain(m *testing.M) { harness.Main(m) }

// number reads a whole number from the environment.
func number(t *testing.T, name string, fallback uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return fallback
	}
	n, err := strconv.ParseUint(s, 10, 64)
	require.NoError(t, err, name)
	return n
}

// clients gives one client a node, closed with the test.
func clients(t *testing.T, nodes []*local.Server) []*client.Client {
	out := make([]*client.Client, 0, len(nodes))
	for _, n := range nodes {
		c := n.Client()
		t.Cleanup(c.Close)
		out = append(out, c)
	}
	return out
}
