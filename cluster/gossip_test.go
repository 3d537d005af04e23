// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// An address in brackets may be of either kind: who fills it in, as Kubernetes does, need not know which.
func TestGossipAdvertiseAddress(t *testing.T) {
	for given, want := range map[string]string{"[10.0.0.1]:9191": "10.0.0.1", "[fd00::1]:9191": "fd00::1", "10.0.0.1:9191": "10.0.0.1"} {
		g := &gossip{node: &Node{cfg: Config{GossipAdvertiseAddress: given}}}
		host, port, err := g.advertise("0.0.0.0", 1)
		require.NoError(t, err, given)
		require.Equal(t, want, host)
		require.Equal(t, 9191, port)
	}
}
