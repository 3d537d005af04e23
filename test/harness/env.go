// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/local"
)

// Number reads a whole number from the environment.
func Number(t *testing.T, name string, fallback uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return fallback
	}
	n, err := strconv.ParseUint(s, 10, 64)
	require.NoError(t, err, name)
	return n
}

// Clients gives one client a node, closed with the test.
func Clients(t *testing.T, nodes []*local.Server) []*client.Client {
	out := make([]*client.Client, 0, len(nodes))
	for _, n := range nodes {
		c := n.Client()
		t.Cleanup(c.Close)
		out = append(out, c)
	}
	return out
}

// ReadAll reads every sample of a node, linearizably.
func ReadAll(t *testing.T, n *local.Server) client.Data {
	t.Helper()
	cl := n.Client().At(client.Linearizable)
	defer cl.Close()
	data, err := cl.ReadAll(t.Context())
	require.NoError(t, err, "data of %s", n.Name)
	return data
}
