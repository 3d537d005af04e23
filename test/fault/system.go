// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/local"
)

// System is the servers of a run and what stands before them.
type System struct {
	// Name says in reports what it is.
	Name string
	// Nodes are the members, in the order of their names. There is one at least.
	Nodes []*Node
	// Spare is a node that may join and leave, which does not run at first; nil if there is none.
	Spare *Node
	// Balancer is the URL of a load balancer before the nodes; "" if there is none.
	Balancer string
	// Cluster says that the nodes are one logical server and replicate what any of them takes.
	Cluster bool
	// Listen is an IP address on which this process can listen so that the nodes reach it.
	Listen string
}

// Node is one server of a System. Its fields do not change; a nil function means that the system cannot do that.
type Node struct {
	Process

	// Name is its node id.
	Name string
	// URL is the base of its API.
	URL string
	// Dir is its data directory as this process sees it.
	Dir string
	// Log is the file that its output goes to; "" if there is none.
	Log string
	// Addrs are its IP addresses: the one that its peers use comes first.
	Addrs []string
	// Enter is the start of a command that runs a program in the node's network: nsenter, or ip netns exec. It is asked
	// for at each use, for a container's network is new at each start.
	Enter func() ([]string, error)
	// Unplug takes the node off every network, Plug puts it back.
	Unplug, Plug func() error
	// Clock is the file that sets its clock off, see skew.go; "" if it has none.
	Clock string
}

// Process is the process of a node, as local.Server has it. Every call ends within a minute or so.
type Process interface {
	// Start starts it and does not wait until it is ready.
	Start(env ...string) error
	// Kill ends it by SIGKILL and returns when it has ended. One that does not run is left alone.
	Kill() error
	// Stop ends it by SIGTERM; the error tells of a bad exit code, or that it took too long.
	Stop() error
	// Pause freezes it, Resume ends that.
	Pause() error
	Resume() error
	// Running tells whether there is a process, frozen ones included.
	Running() bool
	// PID is its process id, as this process sees it; 0 if it does not run.
	PID() int
}

// awaitBalancer waits until the balancer sends to all nodes, which are ready: it finds that out some time after they are. Of servers that
// do not name themselves in their answers one is enough.
func (s *System) awaitBalancer(ctx context.Context) error {
	if s.Balancer == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	cl := client.New(s.Balancer).At(client.Local)
	defer cl.Close()
	seen := map[string]bool{}
	err := local.Poll(ctx, func(ctx context.Context) error {
		resp, err := cl.Get(ctx, "/api/v1/query?query=1", nil)
		if err != nil {
			return err
		}
		if seen[resp.Header.Get("X-Deucalion-Node")] = true; s.Cluster && len(seen) < len(s.Nodes) {
			return errLeftOut
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("balancer: it sends to %v: %w", slices.Sorted(maps.Keys(seen)), err)
	}
	return nil
}

var errLeftOut = errors.New("a node is left out")

// Client returns a new client of the node.
func (n *Node) Client() *client.Client { return client.New(n.URL) }
