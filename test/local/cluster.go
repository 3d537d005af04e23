// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/deucaliondb/deucalion/internal/freeport"
)

// errNoLeader means that the nodes do not name a leader which runs.
var errNoLeader = errors.New("no leader")

// ClusterOptions say what StartCluster starts.
type ClusterOptions struct {
	Bin   string   // the deucalion binary
	Dir   string   // data and logs of all nodes are made below it
	Nodes int      // 0 means three
	Hosts []Host   // of the nodes, one each; nil puts all on loopback
	Flags []string // for every node, after those which the cluster needs itself
}

// Host is a place for a node with an address of its own, where it gets the default ports.
type Host struct {
	Addr    string   // IP address
	Command []string // starts a program there: the program and its arguments follow
}

// Cluster is a set of nodes, each with data directory and addresses of its own that last until Close.
type Cluster struct {
	Nodes []*Server // in order of their ids: n1, n2, ...

	ports freeport.Ports
}

// NewCluster lays out a cluster without starting it.
func NewCluster(o ClusterOptions) (*Cluster, error) {
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	c := &Cluster{}
	all := make([]addresses, o.Nodes)
	for i := range all {
		var err error
		if all[i], err = c.addresses(o, i); err != nil {
			c.ports.Release()
			return nil, err
		}
	}
	for i := range o.Nodes {
		node, err := c.node(o, i, all)
		if err != nil {
			c.ports.Release()
			return nil, err
		}
		c.Nodes = append(c.Nodes, node)
	}
	return c, nil
}

// addresses of a node: host:port.
type addresses struct{ web, raft, gossip string }

func (c *Cluster) addresses(o ClusterOptions, i int) (addresses, error) {
	if o.Hosts != nil {
		host := o.Hosts[i].Addr
		return addresses{web: host + ":9090", raft: host + ":9190", gossip: host + ":9191"}, nil
	}
	var out [3]string
	for k := range out {
		port, err := c.ports.Take()
		if err != nil {
			return addresses{}, err
		}
		out[k] = address(port)
	}
	return addresses{web: out[0], raft: out[1], gossip: out[2]}, nil
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func (c *Cluster) node(o ClusterOptions, i int, all []addresses) (*Server, error) {
	name := fmt.Sprintf("n%d", i+1)
	s := &Server{
		Name: name,
		Addr: all[i].web,
		Dir:  filepath.Join(o.Dir, name),
		Log:  filepath.Join(o.Dir, name+".log"),
		bin:  o.Bin,
	}
	if o.Hosts != nil {
		command := o.Hosts[i].Command
		s.bin, s.args = command[0], append(slices.Clone(command[1:]), o.Bin)
	}
	s.args = append(s.args,
		"--node.id="+name,
		"--storage.tsdb.path="+s.Dir,
		"--web.listen-address="+s.Addr,
		"--cluster.listen-address="+all[i].raft,
		"--cluster.gossip-listen-address="+all[i].gossip,
		fmt.Sprintf("--cluster.bootstrap-expect=%d", min(o.Nodes, 3)),
		"--web.enable-admin-api",
	)
	for j, peer := range all {
		if j != i {
			s.args = append(s.args, "--cluster.peer="+peer.gossip)
		}
	}
	s.args = append(s.args, o.Flags...)
	return s, os.MkdirAll(s.Dir, 0o755)
}

// Start starts the nodes which do not run and waits until all are ready.
func (c *Cluster) Start(ctx context.Context) error {
	for _, n := range c.Nodes {
		if n.Running() {
			continue
		}
		if err := n.Start(); err != nil {
			return err
		}
	}
	for _, n := range c.Nodes {
		if err := n.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close kills what runs and gives the ports back.
func (c *Cluster) Close() error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, n.Kill())
	}
	c.ports.Release()
	return errors.Join(errs...)
}

// Node finds a node by its id, nil when there is none.
func (c *Cluster) Node(id string) *Server {
	for _, n := range c.Nodes {
		if n.Name == id {
			return n
		}
	}
	return nil
}

// Leader waits until every running node names the same running leader, and returns it.
func (c *Cluster) Leader(ctx context.Context) (*Server, error) {
	var leader *Server
	err := Poll(ctx, func(ctx context.Context) error {
		leader = nil
		for _, n := range c.Nodes {
			if !n.Running() {
				continue
			}
			seen, err := c.leaderSeenBy(ctx, n)
			if err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			if leader != nil && leader != seen {
				return fmt.Errorf("%w: %s and %s are both named", errNoLeader, leader.Name, seen.Name)
			}
			leader = seen
		}
		if leader == nil {
			return errNoLeader
		}
		return nil
	})
	return leader, err
}

func (c *Cluster) leaderSeenBy(ctx context.Context, n *Server) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	var data struct {
		Leader string `json:"leader"`
	}
	cl := n.Client()
	defer cl.Close()
	if err := cl.Data(ctx, "/api/v1/cluster", nil, &data); err != nil {
		return nil, err
	}
	leader := c.Node(data.Leader)
	if leader == nil || !leader.Running() {
		return nil, fmt.Errorf("%w: names %q", errNoLeader, data.Leader)
	}
	return leader, nil
}

// Followers lists the nodes other than leader.
func (c *Cluster) Followers(leader *Server) []*Server {
	var out []*Server
	for _, n := range c.Nodes {
		if n != leader {
			out = append(out, n)
		}
	}
	return out
}
