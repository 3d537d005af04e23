// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/go-sockaddr"
	"github.com/hashicorp/raft"
)

// advertised returns the address that others should dial: what was given, with the real port where it has none,
// else the listening address, with a private address of this machine in place of a wildcard.
func advertised(given string, listen *net.TCPAddr) (string, error) {
	port := fmt.Sprint(listen.Port)
	if given != "" {
		host, p, err := net.SplitHostPort(given)
		if err != nil {
			host, p = given, ""
		}
		if p == "" || p == "0" {
			p = port
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			return "", fmt.Errorf("advertise address %q cannot be dialled", given)
		}
		return net.JoinHostPort(host, p), nil
	}
	if !listen.IP.IsUnspecified() {
		return net.JoinHostPort(listen.IP.String(), port), nil
	}
	ip, err := sockaddr.GetPrivateIP()
	if err != nil || ip == "" {
		// A machine without a private address: a cluster of one still works.
		ip = "127.0.0.1"
	}
	return net.JoinHostPort(ip, port), nil
}

// addressBook knows under which address a node can be reached now. It implements raft.ServerAddressProvider.
// Gossip is asked first: nodes may come back under new addresses, and then the addresses in the Raft
// configuration are wrong just when a leader, who could correct them, is still to be elected.
type addressBook struct {
	self, selfAddr string // this node, as it reaches itself

	raft   atomic.Pointer[raft.Raft] // nil until Raft has started
	gossip atomic.Pointer[gossip]    // nil until gossip has started
}

// setSelf must be called before the book is used.
func (b *addressBook) setSelf(id string, listen *net.TCPAddr) {
	ip := listen.IP
	if ip.IsUnspecified() {
		ip = net.IPv4(127, 0, 0, 1)
	}
	b.self, b.selfAddr = id, net.JoinHostPort(ip.String(), fmt.Sprint(listen.Port))
}

// lookup returns the Raft address of node id, or "".
func (b *addressBook) lookup(id string) string {
	if id == b.self {
		return b.selfAddr
	}
	if g := b.gossip.Load(); g != nil {
		if m, ok := g.member(id); ok && m.RaftAddress != "" {
			return m.RaftAddress
		}
		if a := g.lastRaftAddress(id); a != "" {
			return a
		}
	}
	if r := b.raft.Load(); r != nil {
		for _, s := range r.GetConfiguration().Configuration().Servers {
			if string(s.ID) == id {
				_, addr := splitTarget(s.Address) // see member.configured
				return addr
			}
		}
	}
	return ""
}

// ServerAddr implements raft.ServerAddressProvider. The id is put before the address, for the preamble of mux.go.
func (b *addressBook) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	addr := b.lookup(string(id))
	if addr == "" {
		return "", fmt.Errorf("no address of node %s", id)
	}
	return raft.ServerAddress(string(id) + "@" + addr), nil
}

// splitTarget undoes ServerAddr.
func splitTarget(a raft.ServerAddress) (id, addr string) {
	if i := strings.LastIndexByte(string(a), '@'); i >= 0 {
		return string(a[:i]), string(a[i+1:])
	}
	return "", string(a)
}
