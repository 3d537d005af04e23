// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
)

// ConfirmLeader returns nil when this node leads and a majority of the voters has said so after the call. Then this
// node's state holds everything that was acknowledged before the call: the leader acknowledges what it has applied.
// It does not try again; bounded by ctx and by 2 s. The error wraps ErrNoLeader.
func (n *Node) ConfirmLeader(ctx context.Context) error {
	if n.isStopped() {
		return fmt.Errorf("%w: %w", ErrNoLeader, ErrStopped)
	}
	if !n.isLeader() {
		return fmt.Errorf("%w here", ErrNoLeader)
	}
	if _, err := n.reads.do(ctx); err != nil {
		return fmt.Errorf("%w here: %v", ErrNoLeader, err)
	}
	return nil
}
