// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// flow is one direction between two nodes.
type flow struct{ from, to string }

// network is what the nodes of a partition test are connected by: real TCP and UDP on loopback, through connections
// that can be cut, one direction at a time, and delayed.
type network struct {
	mu     sync.Mutex // protects the following
	owner  map[string]string
	cuts   map[flow]bool
	delays map[flow]time.Duration
	refuse bool // cut connections are reset and new ones refused, else both hang
	gossip bool // gossip is cut as well
	conns  map[*cutConn]struct{}
}

func newNetwork() *network {
	return &network{
		owner: map[string]string{}, cuts: map[flow]bool{}, delays: map[flow]time.Duration{}, conns: map[*cutConn]struct{}{},
	}
}

// own notes that node id is at addr.
func (w *network) own(addr, id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owner[addr] = id
}

func (w *network) ownerOf(addr string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.owner[addr]
}

// set replaces all cuts.
func (w *network) set(refuse, gossip bool, cuts ...flow) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse, w.gossip = refuse, gossip
	clear(w.cuts)
	for _, f := range cuts {
		w.cuts[f] = true
	}
	if !refuse {
		return
	}
	for c := range w.conns {
		if w.cuts[c.out()] || w.cuts[c.in()] {
			c.reset()
		}
	}
}

// slow replaces all delays.
func (w *network) slow(delays map[flow]time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delays = delays
}

// heal ends all cuts and delays.
func (w *network) heal() {
	w.set(false, false)
	w.slow(nil)
}

func (w *network) state(f flow) (cut, refuse bool, delay time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cuts[f], w.refuse, w.delays[f]
}

func (w *network) gossipCut(f flow) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gossip && w.cuts[f]
}

// cutPoll is how often something that is cut looks whether it still is.
const cutPoll = 2 * time.Millisecond

// dialer makes the connections of node from.
func (w *network) dialer(from string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		to := w.ownerOf(addr)
		// A handshake needs both directions.
		for _, f := range []flow{{from, to}, {to, from}} {
			for {
				cut, refuse, _ := w.state(f)
				if !cut {
					break
				}
				if refuse {
					return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
				}
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-time.After(cutPoll):
				}
			}
		}
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return w.wrap(c, from, to), nil
	}
}

func (w *network) wrap(c net.Conn, from, to string) net.Conn {
	x := &cutConn{Conn: c, network: w, from: from, to: to, closed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[x] = struct{}{}
	return x
}

// cutConn is the dialling end of a connection. What is written while its direction is cut waits for the end of the
// cut, as in the retransmission of a real partition, and so does what arrives.
type cutConn struct {
	net.Conn
	network  *network
	from, to string

	readDeadline, writeDeadline atomic.Int64 // Unix ns, 0 means none

	readMu  sync.Mutex // protects the following
	held    []byte
	heldErr error

	once   sync.Once
	closed chan struct{}
}

func (c *cutConn) out() flow { return flow{c.from, c.to} }
func (c *cutConn) in() flow  { return flow{c.to, c.from} }

// pass returns when f is open.
func (c *cutConn) pass(f flow, deadline *atomic.Int64) error {
	for {
		cut, _, delay := c.network.state(f)
		wait := cutPoll
		if !cut {
			if delay == 0 {
				return nil
			}
			wait = delay
		}
		select {
		case <-c.closed:
			return net.ErrClosed
		case <-time.After(wait):
		}
		if d := deadline.Load(); d != 0 && time.Now().UnixNano() > d {
			return os.ErrDeadlineExceeded
		}
		if !cut {
			return nil
		}
	}
}

// Write implements net.Conn.
func (c *cutConn) Write(p []byte) (int, error) {
	if err := c.pass(c.out(), &c.writeDeadline); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// Read implements net.Conn.
func (c *cutConn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if len(c.held) == 0 && c.heldErr == nil {
		n, err := c.Conn.Read(p)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		c.held, c.heldErr = append(c.held[:0], p[:n]...), err
	}
	if err := c.pass(c.in(), &c.readDeadline); err != nil {
		return 0, err
	}
	n := copy(p, c.held)
	if c.held = c.held[n:]; len(c.held) > 0 {
		return n, nil
	}
	return n, c.heldErr
}

// SetDeadline implements net.Conn.
func (c *cutConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *cutConn) SetReadDeadline(t time.Time) error {
	c.readDeadline.Store(nanos(t))
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *cutConn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline.Store(nanos(t))
	return c.Conn.SetWriteDeadline(t)
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Close implements net.Conn.
func (c *cutConn) Close() error {
	c.network.mu.Lock()
	delete(c.network.conns, c)
	c.network.mu.Unlock()
	c.reset()
	return c.Conn.Close()
}

// reset makes both ends fail.
func (c *cutConn) reset() {
	c.once.Do(func() {
		close(c.closed)
		_ = c.Conn.Close()
	})
}

// memberlist puts the network under the gossip of node from.
func (w *network) memberlist(from string) func(*memberlist.Config) error {
	return func(c *memberlist.Config) error {
		t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{c.BindAddr}, BindPort: c.BindPort, Logger: c.Logger,
		})
		if err != nil {
			return err
		}
		c.BindPort = t.GetAutoBindPort()
		c.AdvertisePort = c.BindPort
		c.Transport = &cutGossip{NetTransport: t, network: w, from: from}
		return nil
	}
}

// cutGossip loses packets and refuses connections whose direction is cut.
type cutGossip struct {
	*memberlist.NetTransport
	network *network
	from    string
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (g *cutGossip) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if g.network.gossipCut(flow{g.from, g.target(a)}) {
		return time.Now(), nil
	}
	return g.NetTransport.WriteToAddress(b, a)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (g *cutGossip) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	to := g.target(a)
	if g.network.gossipCut(flow{g.from, to}) || g.network.gossipCut(flow{to, g.from}) {
		return nil, fmt.Errorf("gossip to %s is cut", to)
	}
	return g.NetTransport.DialAddressTimeout(a, timeout)
}

func (g *cutGossip) target(a memberlist.Address) string {
	if a.Name != "" {
		return a.Name
	}
	return g.network.ownerOf(a.Addr)
}
