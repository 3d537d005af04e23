// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"

	"github.com/deucaliondb/deucalion/cluster"
)

// Cluster is what this package needs of *cluster.Node.
type Cluster interface {
	// ID is this node's id.
	ID() string
	// Leader is the id of the leader, if there is one that this node knows of.
	Leader() (id string, ok bool)
	// Ready is nil while this node takes part.
	Ready() error
	// Members are the live nodes by id, with what they tell of themselves.
	Members() []cluster.Member
	// MembersChanged returns a channel that is closed at the next change of Members.
	MembersChanged() <-chan struct{}
	// SetAttribute tells the other nodes something about this one; an empty value takes it back.
	SetAttribute(name, value string)
	// RunDuty runs fn whenever this node leads; its context ends with the leadership.
	RunDuty(fn func(ctx context.Context))
	// ReadIndex returns a log index that covers everything acknowledged before the call.
	ReadIndex(ctx context.Context) (uint64, error)
}
