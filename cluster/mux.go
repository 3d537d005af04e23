// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// A connection to the cluster port begins with one byte that says what it carries. 'R' is followed by the id of
// the node that is meant (one length byte, then the id); 'H' by HTTP/2, whose requests name the node in a header.
// Both name it because addresses get reused: Raft itself takes an AppendEntries with a newer term from anybody.
const (
	protoRaft = 'R'
	protoRPC  = 'H'
)

const (
	sniffTimeout = 3 * time.Second
	maxSniffing  = 128
)

// mux shares one TCP listener between Raft and RPC.
type mux struct {
	ln      net.Listener
	id      string
	metrics *metrics
	raft    *subListener
	rpc     *subListener
	wg      sync.WaitGroup

	mu       sync.Mutex // protects the following
	closed   bool
	conns    map[*muxConn]struct{} // every accepted connection that is not closed
	sniffing []*muxConn            // those whose first bytes have not come, oldest first
}

// newMux listens on addr and serves at once; id is the node that connections must mean.
func newMux(addr, id string, m *metrics) (*mux, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cluster port: %w", err)
	}
	x := &mux{ln: ln, id: id, metrics: m, conns: make(map[*muxConn]struct{})}
	x.raft = &subListener{addr: ln.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}
	x.rpc = &subListener{addr: ln.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}
	x.wg.Add(1)
	go x.accept()
	return x, nil
}

func (x *mux) accept() {
	defer x.wg.Done()
	for {
		c, err := x.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of file descriptors, a reset before accept: neither lasts
			time.Sleep(50 * time.Millisecond)
			continue
		}
		mc := &muxConn{Conn: c, mux: x}
		if !x.admit(mc) {
			_ = c.Close()
			continue
		}
		go x.sniff(mc)
	}
}

// admit counts c in. When too many connections are silent, the oldest of them goes, not the newest: a flood of
// silent ones can then not keep a talking one out.
func (x *mux) admit(c *muxConn) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return false
	}
	if len(x.sniffing) >= maxSniffing {
		x.metrics.refusedConns.WithLabelValues("crowded").Inc()
		_ = x.sniffing[0].Conn.Close() // its sniff goroutine takes it off the books
		x.sniffing = x.sniffing[1:]
	}
	x.conns[c] = struct{}{}
	x.sniffing = append(x.sniffing, c)
	x.wg.Add(1)
	return true
}

func (x *mux) sniff(c *muxConn) {
	defer x.wg.Done()
	to, err := x.preamble(c)
	x.mu.Lock()
	for i := range x.sniffing {
		if x.sniffing[i] == c {
			x.sniffing = append(x.sniffing[:i], x.sniffing[i+1:]...)
			break
		}
	}
	x.mu.Unlock()
	if err != nil {
		x.metrics.refusedConns.WithLabelValues("preamble").Inc()
		_ = c.Close()
		return
	}
	select {
	case to.conns <- c:
	case <-to.done:
		_ = c.Close()
	}
}

// preamble reads the first bytes, no more.
func (x *mux) preamble(c net.Conn) (*subListener, error) {
	if err := c.SetReadDeadline(time.Now().Add(sniffTimeout)); err != nil {
		return nil, err
	}
	var b [256]byte
	if _, err := io.ReadFull(c, b[:1]); err != nil {
		return nil, err
	}
	to := x.rpc
	switch b[0] {
	case protoRPC:
	case protoRaft:
		to = x.raft
		if _, err := io.ReadFull(c, b[:1]); err != nil {
			return nil, err
		}
		id := b[:b[0]]
		if _, err := io.ReadFull(c, id); err != nil {
			return nil, err
		}
		if string(id) != x.id {
			return nil, fmt.Errorf("%w: %q", ErrWrongNode, id)
		}
	default:
		return nil, fmt.Errorf("unknown protocol %#x", b[0])
	}
	return to, c.SetReadDeadline(time.Time{})
}

// Close closes the listener and every connection that came through it, and waits for the mux's goroutines.
func (x *mux) Close() error {
	err := x.ln.Close()
	_ = x.raft.Close()
	_ = x.rpc.Close()
	x.mu.Lock()
	x.closed = true
	for c := range x.conns {
		_ = c.Conn.Close()
	}
	x.mu.Unlock()
	x.wg.Wait()
	return err
}

// muxConn leaves the mux's books when it is closed.
type muxConn struct {
	net.Conn
	mux *mux
}

// Close implements net.Conn.
func (c *muxConn) Close() error {
	c.mux.mu.Lock()
	delete(c.mux.conns, c)
	c.mux.mu.Unlock()
	return c.Conn.Close()
}

// subListener is the half of the mux that Raft or RPC sees. Closing it leaves the other half open.
type subListener struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// Accept implements net.Listener.
func (l *subListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *subListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *subListener) Addr() net.Addr { return l.addr }
