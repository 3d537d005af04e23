// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/local"
	"github.com/deucaliondb/deucalion/test/netns"
)

const (
	// peerDisk is the size of the disk of a peer's node.
	peerDisk = "1g"
	peerPort = ":9090"
)

// PeerOptions say what a system for comparison is made of.
type PeerOptions struct {
	// Number keeps its network apart from others, see netns.New.
	Number int
	// Dir gets configurations, logs and, as disks of their own, the data directories.
	Dir string
	// Flags are given to each node, after those that it needs.
	Flags []string
}

// Peer is a System of other programs, whose users make do without replication. Its nodes are hosts in network namespaces, each
// with a disk of 1 GiB in memory. It is laid out, then Configure, as what the configuration names listens on System.Listen, then
// Start. Close ends all of it.
type Peer struct {
	*System
	// Readers read back what the nodes store, in their order.
	Readers []Reader

	dir      string
	section  string // of the configuration, of the kind of server
	net      *netns.Net
	balancer *local.Server // nil: there is none
	mounts   []string
	clients  []*client.Client
}

// NewStock lays out one stock Prometheus, which takes remote writes and samples that are late by half an hour. The error wraps
// exec.ErrNotFound when it is not installed.
func NewStock(o PeerOptions) (*Peer, error) {
	p, err := newPeer("stock Prometheus", o, 1, "prometheus")
	if err != nil {
		return nil, err
	}
	return p.orClose(p.stock(o, 0))
}

// NewStockPair lays out two of them behind HAProxy, as users have it who want one to be there when the other is not.
func NewStockPair(o PeerOptions) (*Peer, error) {
	p, err := newPeer("pair of stock Prometheus", o, 3, "prometheus", "haproxy")
	if err != nil {
		return nil, err
	}
	return p.orClose(errors.Join(p.stock(o, 0), p.stock(o, 1), p.haproxy(2)))
}

func newPeer(name string, o PeerOptions, hosts int, programs ...string) (*Peer, error) {
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	n, err := netns.New(o.Number, hosts)
	if err != nil {
		return nil, err
	}
	return &Peer{System: &System{Name: name, Listen: n.Addr}, dir: o.Dir, net: n}, nil
}

func (p *Peer) orClose(err error) (*Peer, error) {
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Configure writes the configuration of the nodes, which is Prometheus's but for the section storage.
func (p *Peer) Configure(yaml string) error {
	for _, n := range p.Nodes {
		if err := os.WriteFile(p.config(n.Name), []byte(p.section+yaml), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (p *Peer) config(node string) string { return filepath.Join(p.dir, node+".yml") }

// Start starts all that does not run, and waits until it is ready.
func (p *Peer) Start(ctx context.Context) error {
	servers := []*local.Server{}
	for _, n := range p.Nodes {
		servers = append(servers, n.Process.(*local.Server))
	}
	if p.balancer != nil {
		servers = append(servers, p.balancer)
	}
	for _, s := range servers {
		if s.Running() {
			continue
		}
		if err := s.Start(); err != nil {
			return err
		}
	}
	for _, s := range servers {
		if err := s.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close kills what runs, and removes disks and network.
func (p *Peer) Close() error {
	var errs []error
	for _, c := range p.clients {
		c.Close()
	}
	for _, n := range p.Nodes {
		errs = append(errs, n.Kill())
	}
	if p.balancer != nil {
		errs = append(errs, p.balancer.Kill())
	}
	for _, dir := range p.mounts {
		// Detached: somebody else may still look at it.
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", dir, err))
		}
	}
	return errors.Join(append(errs, p.net.Close())...)
}

// node adds a node on a host. arguments get the configuration file, the data directory and the address.
func (p *Peer) node(o PeerOptions, host int, program string, arguments func(config, data, addr string) []string) (*Node, error) {
	name := fmt.Sprintf("n%d", host+1)
	h := p.net.Hosts[host]
	data := filepath.Join(p.dir, name)
	if err := p.mount(data); err != nil {
		return nil, err
	}
	addr := h.Addr + peerPort
	command := slices.Concat(h.Command(), []string{program}, arguments(p.config(name), data, addr), o.Flags)
	n := &Node{
		Process: local.NewServer(name, addr, data, filepath.Join(p.dir, name+".log"), command),
		Name:    name, URL: "http://" + addr, Dir: data, Addrs: []string{h.Addr},
		Enter:  func() ([]string, error) { return h.Command(), nil },
		Unplug: h.Unplug, Plug: h.Plug,
	}
	p.Nodes = append(p.Nodes, n)
	return n, p.Configure("")
}

// mount puts an empty disk on dir. One that an earlier process has left there is removed.
func (p *Peer) mount(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	_ = syscall.Unmount(dir, syscall.MNT_DETACH)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755,size="+peerDisk); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	p.mounts = append(p.mounts, dir)
	return nil
}

func (p *Peer) stock(o PeerOptions, host int) error {
	p.section = "storage: {tsdb: {out_of_order_time_window: 30m}}\n"
	n, err := p.node(o, host, "prometheus", func(config, data, addr string) []string {
		return []string{
			"--config.file=" + config, "--storage.tsdb.path=" + data, "--web.listen-address=" + addr,
			"--storage.tsdb.retention.time=10y", "--web.enable-remote-write-receiver", "--web.enable-admin-api", "--enable-feature=native-histograms",
		}
	})
	if err != nil {
		return err
	}
	c := n.Client()
	p.clients = append(p.clients, c)
	p.Readers = append(p.Readers, Reader{Name: n.Name, Read: c.Read})
	return nil
}

// haproxy puts a balancer before the nodes.
func (p *Peer) haproxy(host int) error {
	h := p.net.Hosts[host]
	addr := h.Addr + peerPort
	text := `defaults
  mode http
  maxconn 4096
  timeout connect 2s
  timeout client 2m
  timeout server 2m
  retries 3
  option redispatch
frontend prometheus
  bind ` + addr + `
  default_backend pair
backend pair
  balance roundrobin
  option httpchk GET /-/ready
  default-server check inter 1s fall 2 rise 2
`
	for _, n := range p.Nodes {
		text += fmt.Sprintf("  server %s %s%s\n", n.Name, n.Addrs[0], peerPort)
	}
	file := filepath.Join(p.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	command := append(h.Command(), "haproxy", "-db", "-f", file)
	p.balancer = local.NewServer("haproxy", addr, p.dir, filepath.Join(p.dir, "haproxy.log"), command)
	p.Balancer = "http://" + addr
	return nil
}
