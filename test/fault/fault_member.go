// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/deucaliondb/deucalion/test/local"
)

// memberFaults are what operators do.
func memberFaults() []Fault {
	return []Fault{
		{Name: "leadership transfer", Weight: 2, Possible: replicated, Do: transfer},
		{Name: "a node joins, dies, and is removed", Weight: 1, Possible: func(s *System) bool { return s.Spare != nil }, Do: change},
	}
}

func transfer(ctx context.Context, n *Nemesis) (string, error) {
	leader, followers, err := n.roles(ctx)
	if err != nil {
		return "", err
	}
	if err := n.admin(ctx, n.any(), "transfer_leader", followers[0].Name); err != nil {
		return "", err
	}
	return leader.Name + " to " + followers[0].Name, nil
}

// change lets the spare node join, become a voter, die, and be removed by the others.
func change(ctx context.Context, n *Nemesis) (string, error) {
	spare := n.System.Spare
	err := n.join(ctx, spare)
	err = errors.Join(err, spare.Kill())
	if err != nil {
		return spare.Name, err
	}
	n.hold(ctx, 10*time.Millisecond, time.Second)
	if err := n.admin(ctx, n.any(), "remove_peer", spare.Name); err != nil {
		return spare.Name, err
	}
	return spare.Name, spare.empty()
}

func (n *Nemesis) join(ctx context.Context, spare *Node) error {
	if err := spare.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return local.Poll(ctx, func(ctx context.Context) error {
		status, err := n.System.Nodes[0].status(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(status.Nodes, func(m member) bool { return m.ID == spare.Name })
		if i < 0 || !status.Nodes[i].Voter {
			return fmt.Errorf("%s is no voter yet", spare.Name)
		}
		return nil
	})
}

// admin makes an admin call about a node, until it succeeds: a leader may not be there at the moment, and gossip may not
// know yet that the node is dead.
func (n *Nemesis) admin(ctx context.Context, at *Node, call, id string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	cl := at.Client()
	defer cl.Close()
	return local.Poll(ctx, func(ctx context.Context) error {
		_, err := cl.Post(ctx, "/api/v1/admin/cluster/"+call, url.Values{"id": {id}})
		return err
	})
}
