// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"syscall"
	"time"
)

func always(*System) bool       { return true }
func replicated(s *System) bool { return s.Cluster }

// processFaults are about processes that die, freeze or stop.
func processFaults() []Fault {
	return []Fault{
		{Name: "kill -9", Weight: 4, Possible: always, Do: one(kill)},
		{Name: "kill -9 of two nodes", Weight: 2, Possible: replicated, Do: killTwo},
		{Name: "kill -9 of all nodes", Weight: 2, Possible: always, Do: killAll},
		{Name: "frozen process", Weight: 3, Possible: always, Do: one(freeze)},
		{Name: "stutter (SIGSTOP and SIGCONT in turns)", Weight: 1, Possible: always, Do: one(stutter)},
		{Name: "graceful stop", Weight: 2, Possible: always, Do: one(stop)},
		{Name: "rolling restart", Weight: 1, Possible: always, Do: roll},
	}
}

// one makes a fault of what is done to a single node: to the leader half of the time.
func one(do func(context.Context, *Nemesis, *Node) error) func(context.Context, *Nemesis) (string, error) {
	return func(ctx context.Context, n *Nemesis) (string, error) {
		node, err := n.victim(ctx)
		if err != nil {
			return "", err
		}
		return node.Name, do(ctx, n, node)
	}
}

// kill ends a node; it stays dead long enough for an election, or comes back in the middle of one.
func kill(ctx context.Context, n *Nemesis, node *Node) error {
	if err := node.Kill(); err != nil {
		return err
	}
	n.hold(ctx, 100*time.Millisecond, 4*time.Second)
	return nil
}

func killTwo(ctx context.Context, n *Nemesis) (string, error) {
	spared := n.any()
	var dead []*Node
	for _, node := range n.System.Nodes {
		if node != spared {
			dead = append(dead, node)
		}
	}
	return names(dead...), n.killAtOnce(ctx, dead)
}

func killAll(ctx context.Context, n *Nemesis) (string, error) {
	return names(n.System.Nodes...), n.killAtOnce(ctx, n.System.Nodes)
}

func (n *Nemesis) killAtOnce(ctx context.Context, nodes []*Node) error {
	errs := make(chan error, len(nodes))
	for _, node := range nodes {
		go func() { errs <- node.Kill() }()
	}
	var all []error
	for range nodes {
		all = append(all, <-errs)
	}
	n.hold(ctx, 100*time.Millisecond, time.Second)
	return errors.Join(all...)
}

// freeze stops a process long enough for the others to elect, or for less.
func freeze(ctx context.Context, n *Nemesis, node *Node) error {
	if err := node.Pause(); err != nil {
		return err
	}
	n.hold(ctx, 500*time.Millisecond, 6*time.Second)
	return node.Resume()
}

// stutter lets a process run for moments only, as on a machine that is out of memory or CPU.
func stutter(ctx context.Context, n *Nemesis, node *Node) error {
	for range 10 {
		if err := node.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		n.hold(ctx, 100*time.Millisecond, 500*time.Millisecond)
		if err := node.signal(syscall.SIGCONT); err != nil {
			return err
		}
		n.hold(ctx, 10*time.Millisecond, 100*time.Millisecond)
	}
	return nil
}

func (n *Node) signal(sig syscall.Signal) error {
	pid := n.PID()
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, sig); !errors.Is(err, syscall.ESRCH) { // it may have ended meanwhile
		return err
	}
	return nil
}

func stop(ctx context.Context, n *Nemesis, node *Node) error {
	if err := node.Stop(); err != nil {
		return err
	}
	n.hold(ctx, 10*time.Millisecond, 2*time.Second)
	return nil
}

// roll restarts node after node, as an upgrade does.
func roll(ctx context.Context, n *Nemesis) (string, error) {
	for _, node := range n.System.Nodes {
		if err := node.Stop(); err != nil {
			return "", err
		}
		if err := n.Heal(ctx); err != nil {
			return "", err
		}
	}
	return "all, one after the other", nil
}
