// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package freeport_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/internal/freeport"
)

func TestPortsAreFreeAndDistinct(t *testing.T) {
	var a, b freeport.Ports
	defer a.Release()
	defer b.Release()
	seen := map[int]bool{}
	for range 20 {
		for _, ports := range []*freeport.Ports{&a, &b} {
			port, err := ports.Take()
			require.NoError(t, err)
			require.False(t, seen[port])
			seen[port] = true
			l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
			require.NoError(t, err)
			l.Close()
		}
	}
}
