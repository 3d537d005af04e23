// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands before a node's cluster port and does to its answers what a bad network does. It tells RPC from Raft by
// the first byte.
type proxy struct {
	ln     net.Listener
	target atomic.Pointer[string]
	wg     sync.WaitGroup

	limit atomic.Int64 // RPC connections break after so many bytes of answers; 0: they do not
	flip  atomic.Int64 // this byte of the answers of an RPC connection is changed, once; 0: none
	cuts  atomic.Int64 // connections that were broken
	flips atomic.Int64

	mute  atomic.Bool // no answer to Raft arrives
	muted atomic.Int64
	deaf  atomic.Bool // no new connection of Raft arrives

	mu     sync.Mutex // protects the following
	closed bool
	conns  map[net.Conn]struct{}
}

func newProxy(t *testing.T) *proxy {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{ln: ln, conns: make(map[net.Conn]struct{})}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) to(addr string) { p.target.Store(&addr) }

func (p *proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(c) })
	}
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	to := p.target.Load()
	if to == nil {
		return
	}
	var first [1]byte
	if _, err := io.ReadFull(c, first[:]); err != nil {
		return
	}
	if first[0] != 'H' && p.deaf.Load() {
		return
	}
	s, err := net.Dial("tcp", *to)
	if err != nil {
		return
	}
	defer s.Close()
	if !p.keep(c, s) {
		return
	}
	defer p.forget(c, s)
	if _, err := s.Write(first[:]); err != nil {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_, _ = io.Copy(s, c)
		_ = s.Close()
	})
	p.answers(c, s, first[0] == 'H')
	_, _ = c.Close(), s.Close()
}

// answers copies from the node s to its caller c.
func (p *proxy) answers(c io.Writer, s io.Reader, rpc bool) {
	var total int64
	buf := make([]byte, 4096)
	for {
		n, err := s.Read(buf)
		if err != nil {
			return
		}
		if !rpc && p.mute.Load() {
			p.muted.Add(1)
			return
		}
		if at := p.flip.Load(); rpc && at > total && at < total+int64(n) && p.flip.CompareAndSwap(at, 0) {
			buf[at-total] ^= 1
			p.flips.Add(1)
		}
		total += int64(n)
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
		if limit := p.limit.Load(); rpc && limit > 0 && total > limit {
			p.cuts.Add(1)
			return
		}
	}
}

func (p *proxy) keep(cs ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range cs {
		p.conns[c] = struct{}{}
	}
	return !p.closed
}

func (p *proxy) forget(cs ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range cs {
		delete(p.conns, c)
	}
}

// block cuts the node off from those who call it, until to is called.
func (p *proxy) block() {
	p.target.Store(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) close() {
	_ = p.ln.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.block()
	p.wg.Wait()
}
