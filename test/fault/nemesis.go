// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/local"
)

// readyTimeout bounds how long the nodes may take to be well again after a fault.
const readyTimeout = 90 * time.Second

// Fault is a kind of fault.
type Fault struct {
	// Name stands in reports.
	Name string
	// Weight is how often it comes for each time that a fault of weight 1 comes.
	Weight int
	// Possible tells whether a system can have it.
	Possible func(*System) bool
	// Do does it to nodes of the nemesis's choice and undoes it, but for starting nodes that do not run. It tells what it
	// did.
	Do func(ctx context.Context, n *Nemesis) (string, error)
}

// Faults lists all kinds.
func Faults() []Fault {
	return slices.Concat(processFaults(), networkFaults(), diskFaults(), clockFaults(), memberFaults())
}

// Nemesis does faults to a system, one after the other.
type Nemesis struct {
	System *System
	// Doubt is told of times in which a clock is off.
	Doubt func(from, to time.Time)

	rng  *rand.Rand
	kind []Fault
	deck []Fault
	past bool // the first deck
}

// NewNemesis returns a nemesis that does those of the faults which the system can have.
func NewNemesis(s *System, faults []Fault, seed uint64) (*Nemesis, error) {
	n := &Nemesis{System: s, Doubt: func(time.Time, time.Time) {}, rng: rand.New(rand.NewPCG(seed, 0))}
	for _, f := range faults {
		if f.Possible(s) {
			n.kind = append(n.kind, f)
		}
	}
	if len(n.kind) == 0 {
		return nil, fmt.Errorf("%s: no fault is possible", s.Name)
	}
	return n, nil
}

// Next is the fault that comes next: the kinds come as cards from a deck that is shuffled when it is at its end. The first deck has
// one card of each kind, so that a short run has them all.
func (n *Nemesis) Next() Fault {
	if len(n.deck) == 0 {
		for _, f := range n.kind {
			cards := 1
			if n.past {
				cards = f.Weight
			}
			for range cards {
				n.deck = append(n.deck, f)
			}
		}
		n.past = true
		n.rng.Shuffle(len(n.deck), func(i, j int) { n.deck[i], n.deck[j] = n.deck[j], n.deck[i] })
	}
	f := n.deck[0]
	n.deck = n.deck[1:]
	return f
}

// Heal undoes what a fault may have left, starts the nodes that do not run, and waits until all are ready.
func (n *Nemesis) Heal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, node := range n.System.Nodes {
		if err := node.start(); err != nil {
			return err
		}
	}
	for _, node := range n.System.Nodes {
		if err := n.await(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) start() error {
	if n.Running() {
		return nil
	}
	err := n.Start()
	if errors.Is(err, local.ErrRunning) { // whoever watches over it was first
		return nil
	}
	return err
}

// await waits until a node is ready. One that ends meanwhile is started again: a fault of its disk may end it later.
func (n *Nemesis) await(ctx context.Context, node *Node) error {
	cl := node.Client()
	defer cl.Close()
	err := local.Poll(ctx, func(ctx context.Context) error {
		if err := node.start(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		resp, err := cl.Do(ctx, http.MethodGet, "/-/ready", nil, nil)
		if err != nil {
			return err
		}
		return resp.Err()
	})
	if err != nil {
		return fmt.Errorf("%s: not ready: %w", node.Name, err)
	}
	return nil
}

// hold waits for a random time between the bounds, as long as a fault lasts.
func (n *Nemesis) hold(ctx context.Context, from, to time.Duration) {
	pause(ctx, from+time.Duration(n.rng.Int64N(int64(to-from))))
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// any is a random node.
func (n *Nemesis) any() *Node { return n.System.Nodes[n.rng.IntN(len(n.System.Nodes))] }

// victim is the leader half of the time, so that it is hit as often as all others together.
func (n *Nemesis) victim(ctx context.Context) (*Node, error) {
	if !n.System.Cluster {
		return n.any(), nil
	}
	leader, followers, err := n.roles(ctx)
	if err != nil {
		return nil, err
	}
	if n.rng.IntN(2) == 0 {
		return leader, nil
	}
	return followers[0], nil
}

// roles are the leader and, in random order, the others.
func (n *Nemesis) roles(ctx context.Context) (leader *Node, followers []*Node, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err = local.Poll(ctx, func(ctx context.Context) error {
		leader, err = n.System.Leader(ctx)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	for _, node := range n.System.Nodes {
		if node != leader {
			followers = append(followers, node)
		}
	}
	n.rng.Shuffle(len(followers), func(i, j int) { followers[i], followers[j] = followers[j], followers[i] })
	return leader, followers, nil
}

var errNoLeader = errors.New("no leader")

// Leader is the node that all others name as the leader.
func (s *System) Leader(ctx context.Context) (*Node, error) {
	var leader *Node
	for _, node := range s.Nodes {
		status, err := node.status(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", node.Name, err)
		}
		i := slices.IndexFunc(s.Nodes, func(n *Node) bool { return n.Name == status.Leader })
		if i < 0 || leader != nil && leader != s.Nodes[i] {
			return nil, fmt.Errorf("%w: %s names %q", errNoLeader, node.Name, status.Leader)
		}
		leader = s.Nodes[i]
	}
	return leader, nil
}

// status is what a node tells of its cluster.
type status struct {
	Leader string   `json:"leader"`
	Nodes  []member `json:"nodes"`
}

type member struct {
	ID    string `json:"id"`
	Voter bool   `json:"voter"`
}

func (n *Node) status(ctx context.Context) (status, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	cl := n.Client().At(client.Local)
	defer cl.Close()
	var out status
	err := cl.Data(ctx, "/api/v1/cluster", nil, &out)
	return out, err
}

func names(nodes ...*Node) string {
	out := make([]string, len(nodes))
	for i, n := range nodes {
		out[i] = n.Name
	}
	return strings.Join(out, " ")
}
