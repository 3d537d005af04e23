// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"net"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft-wal/types"
)

// dialFunc connects to a node's cluster port.
type dialFunc func(ctx context.Context, addr string) (net.Conn, error)

// hooks let the tests of this package stand between a node and its network, disk and Raft, to cut connections, to lose
// what was not synced, and to refuse snapshots. Without them the real ones are used.
type hooks struct {
	dial       dialFunc
	memberlist func(*memberlist.Config) error
	files      types.VFS
	snapshot   func() error // before Raft's; its error is the result
}

func (h hooks) dialer() dialFunc {
	if h.dial != nil {
		return h.dial
	}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
}

func (h hooks) beforeSnapshot() error {
	if h.snapshot == nil {
		return nil
	}
	return h.snapshot()
}

func (h hooks) gossip(c *memberlist.Config) error {
	if h.memberlist == nil {
		return nil
	}
	return h.memberlist(c)
}
