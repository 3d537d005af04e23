// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/deucaliondb/deucalion/test/local"
	"github.com/deucaliondb/deucalion/test/netns"
)

// diskSize is what a node's file system holds; minFree is the room on it that a node keeps.
const (
	diskSize = "1g"
	minFree  = "64MiB"
)

// NamespacesOptions say what NewNamespaces makes.
type NamespacesOptions struct {
	Bin    string // the program under test
	Dir    string // for data, logs and configuration
	Number int    // of the network, see netns.New
	Clock  bool   // Bin is of BuildSkewed
	Flags  []string
}

// Namespaces are four nodes, three of which are to form a cluster, as processes in network namespaces, each with a small
// file system of its own, behind the HAProxy of the machine with the configuration of deploy/compose.
type Namespaces struct {
	System

	cluster  *local.Cluster
	net      *netns.Net
	balancer *local.Process
	mounted  []string
}

// clocked is a server whose clock is set by a file.
type clocked struct {
	*local.Server
	env []string
}

// Start implements Process.
func (c clocked) Start(env ...string) error { return c.Server.Start(append(env, c.env...)...) }

// NewNamespaces lays all out and starts the balancer, not the nodes. It takes root.
func NewNamespaces(ctx context.Context, o NamespacesOptions) (*Namespaces, error) {
	s := &Namespaces{System: System{Name: "network namespaces", Cluster: true}}
	if err := s.open(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Namespaces) open(ctx context.Context, o NamespacesOptions) (err error) {
	if s.net, err = netns.New(o.Number, 4); err != nil {
		return err
	}
	s.Listen = s.net.Addr
	var hosts []local.Host
	for _, h := range s.net.Hosts {
		hosts = append(hosts, local.Host{Addr: h.Addr, Command: h.Command()})
	}
	s.cluster, err = local.NewCluster(local.ClusterOptions{
		Bin: o.Bin, Dir: o.Dir, Nodes: len(hosts), Hosts: hosts,
		Flags: append([]string{"--storage.min-free=" + minFree}, o.Flags...),
	})
	if err != nil {
		return err
	}
	for i, server := range s.cluster.Nodes {
		node, err := s.node(o, server, s.net.Hosts[i])
		if err != nil {
			return err
		}
		s.Nodes = append(s.Nodes, node)
	}
	s.Spare, s.Nodes = s.Nodes[3], s.Nodes[:3]
	return s.balance(ctx, o.Dir)
}

func (s *Namespaces) node(o NamespacesOptions, server *local.Server, host *netns.Host) (*Node, error) {
	if err := syscall.Mount("tmpfs", server.Dir, "tmpfs", 0, "size="+diskSize); err != nil {
		return nil, fmt.Errorf("mount %s: %w", server.Dir, err)
	}
	s.mounted = append(s.mounted, server.Dir)
	n := &Node{
		Process: server,
		Name:    server.Name,
		URL:     "http://" + server.Addr,
		Dir:     server.Dir,
		Log:     server.Log,
		Addrs:   []string{host.Addr},
		Enter:   func() ([]string, error) { return host.Command(), nil },
		Unplug:  host.Unplug,
		Plug:    host.Plug,
	}
	if !o.Clock {
		return n, nil
	}
	n.Clock = filepath.Join(o.Dir, server.Name+".clock")
	n.Process = clocked{server, []string{ClockVariable + "=" + n.Clock}}
	return n, n.SetClock(0)
}

// balance starts the balancer on the test's own address.
func (s *Namespaces) balance(ctx context.Context, dir string) error {
	bin, err := exec.LookPath("haproxy")
	if err != nil {
		return err
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	env := []string{"DEUCALION_LISTEN=" + s.Listen + ":9090", "DEUCALION_MONITORING=" + s.Listen + ":8404"}
	for i, n := range s.Nodes {
		env = append(env, fmt.Sprintf("DEUCALION_NODE%d=%s:9090", i+1, n.Addrs[0]))
	}
	s.balancer, err = local.StartProcess(bin, []string{"-db", "-f", filepath.Join(root, "deploy/compose/haproxy.cfg")},
		filepath.Join(dir, "haproxy.log"), env...)
	s.Balancer = "http://" + s.Listen + ":9090"
	return err
}

// Close kills the nodes and removes file systems and networks.
func (s *Namespaces) Close() error {
	var errs []error
	if s.cluster != nil {
		errs = append(errs, s.cluster.Close())
	}
	if s.balancer != nil {
		errs = append(errs, s.balancer.Kill())
	}
	for _, dir := range s.mounted {
		errs = append(errs, syscall.Unmount(dir, syscall.MNT_DETACH))
	}
	if s.net != nil {
		errs = append(errs, s.net.Close())
	}
	return errors.Join(errs...)
}

// moduleRoot is the directory of go.mod.
func moduleRoot(ctx context.Context) (string, error) {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(mod))), nil
}
