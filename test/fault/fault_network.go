// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// chain is a direction in a node's packet filter.
type chain string

const (
	in  chain = "INPUT"
	out chain = "OUTPUT"
)

// networkFaults are about packets between nodes that do not arrive. The clients reach the nodes, but where a node is
// unplugged.
func networkFaults() []Fault {
	filtered := func(s *System) bool { return s.Cluster && s.Nodes[0].Enter != nil }
	return []Fault{
		{Name: "node unplugged", Weight: 3, Possible: func(s *System) bool { return s.Nodes[0].Unplug != nil }, Do: one(unplug)},
		{Name: "node cut off from its peers", Weight: 3, Possible: filtered, Do: one(isolate(in, out))},
		{Name: "one-way cut: a node hears nobody", Weight: 2, Possible: filtered, Do: one(isolate(in))},
		{Name: "one-way cut: nobody hears a node", Weight: 2, Possible: filtered, Do: one(isolate(out))},
		{Name: "leader cut from one follower", Weight: 2, Possible: filtered, Do: cutFromOne},
		{Name: "all cut from all", Weight: 1, Possible: filtered, Do: cutAll},
		{Name: "packet loss of 20 to 60 %", Weight: 2, Possible: filtered, Do: one(lose)},
	}
}

func unplug(ctx context.Context, n *Nemesis, node *Node) error {
	if err := node.Unplug(); err != nil {
		return err
	}
	n.hold(ctx, 500*time.Millisecond, 5*time.Second)
	return node.Plug()
}

func isolate(chains ...chain) func(context.Context, *Nemesis, *Node) error {
	return func(ctx context.Context, n *Nemesis, node *Node) error {
		var errs []error
		for _, peer := range n.System.others(node) {
			errs = append(errs, node.drop(peer, 1, chains...))
		}
		if err := errors.Join(errs...); err == nil {
			n.hold(ctx, 500*time.Millisecond, 5*time.Second)
		}
		return errors.Join(append(errs, node.flush())...)
	}
}

func cutFromOne(ctx context.Context, n *Nemesis) (string, error) {
	leader, followers, err := n.roles(ctx)
	if err != nil {
		return "", err
	}
	if err = leader.drop(followers[0], 1, in, out); err == nil {
		n.hold(ctx, 500*time.Millisecond, 5*time.Second)
	}
	return leader.Name + " from " + followers[0].Name, errors.Join(err, leader.flush())
}

func cutAll(ctx context.Context, n *Nemesis) (string, error) {
	var errs []error
	for _, node := range n.System.Nodes {
		for _, peer := range n.System.others(node) {
			errs = append(errs, node.drop(peer, 1, in))
		}
	}
	n.hold(ctx, 500*time.Millisecond, 3*time.Second)
	for _, node := range n.System.Nodes {
		errs = append(errs, node.flush())
	}
	return names(n.System.Nodes...), errors.Join(errs...)
}

func lose(ctx context.Context, n *Nemesis, node *Node) error {
	share := 0.2 + 0.4*n.rng.Float64()
	var errs []error
	for _, peer := range n.System.others(node) {
		errs = append(errs, node.drop(peer, share, in, out))
	}
	n.hold(ctx, time.Second, 5*time.Second)
	return errors.Join(append(errs, node.flush())...)
}

// others are all members but node.
func (s *System) others(node *Node) (out []*Node) {
	for _, n := range s.Nodes {
		if n != node {
			out = append(out, n)
		}
	}
	return out
}

// drop makes a node's packet filter drop a share of the packets from (in) or to (out) a peer.
func (n *Node) drop(peer *Node, share float64, chains ...chain) error {
	for _, c := range chains {
		direction := "-s"
		if c == out {
			direction = "-d"
		}
		for _, addr := range peer.Addrs {
			rule := []string{"iptables", "-w", "-A", string(c), direction, addr, "-j", "DROP"}
			if share < 1 {
				rule = append(rule, "-m", "statistic", "--mode", "random", "--probability", fmt.Sprint(share))
			}
			if err := n.inside(rule...); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush empties a node's packet filter, whether its process runs or not: a network namespace outlives it.
func (n *Node) flush() error { return n.inside("iptables", "-w", "-F") }

// inside runs a program in a node's network. A container's network is gone when its process has ended, by itself perhaps and at any
// moment, and with it all that was to be done or undone in it.
func (n *Node) inside(args ...string) error {
	enter, err := n.Enter()
	if errors.Is(err, errNotRunning) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	all := slices.Concat(enter, args)
	if out, err := exec.Command(all[0], all[1:]...).CombinedOutput(); err != nil {
		if now, gone := n.Enter(); gone != nil || !slices.Equal(now, enter) {
			return nil
		}
		return fmt.Errorf("%s: %s: %w: %s", n.Name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
