// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func testMux(t *testing.T) *mux {
	x, err := newMux("127.0.0.1:0", "me", testMetrics())
	require.NoError(t, err)
	t.Cleanup(func() { _ = x.Close() })
	return x
}

func dial(t *testing.T, x *mux) net.Conn {
	c, err := net.Dial("tcp", x.ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// closedByPeer reports whether the other side hangs up before it says anything.
func closedByPeer(c net.Conn, wait time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	_, err := c.Read(make([]byte, 1))
	ne, isNet := err.(net.Error)
	return err != nil && (!isNet || !ne.Timeout())
}

func TestMuxRefusesGarbage(t *testing.T) {
	x := testMux(t)
	for _, first := range []string{"G", "GET / HTTP/1.1\r\n\r\n", "\x00", "\x16\x03\x01", "R\x02yo", "R\x00"} {
		c := dial(t, x)
		_, err := c.Write([]byte(first))
		require.NoError(t, err)
		require.True(t, closedByPeer(c, 2*time.Second), "%q", first)
	}
	require.Equal(t, 6.0, testutil.ToFloat64(x.metrics.refusedConns.WithLabelValues("preamble")))
	c := dial(t, x)
	_, err := c.Write([]byte("R\x02mehello"))
	require.NoError(t, err)
	in, err := x.raft.Accept()
	require.NoError(t, err)
	b := make([]byte, 5)
	_, err = io.ReadFull(in, b)
	require.NoError(t, err)
	require.Equal(t, "hello", string(b), "nothing after the preamble is eaten")
}

func TestMuxSilentConnections(t *testing.T) {
	t.Parallel()
	x := testMux(t)
	oldest := dial(t, x)
	require.Eventually(t, func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return len(x.sniffing) == 1
	}, 5*time.Second, time.Millisecond)
	for range maxSniffing + 10 {
		dial(t, x)
	}
	require.True(t, closedByPeer(oldest, 2*time.Second), "a flood costs the oldest silent one")
	c := dial(t, x)
	_, err := c.Write([]byte("R\x02me"))
	require.NoError(t, err)
	_, err = x.raft.Accept()
	require.NoError(t, err, "one that talks gets in")
	x.mu.Lock()
	require.LessOrEqual(t, len(x.sniffing), maxSniffing)
	x.mu.Unlock()
	require.Eventually(t, func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return len(x.sniffing) == 0
	}, sniffTimeout+30*time.Second, 10*time.Millisecond, "silence ends")
}

func TestMuxCloseEndsConnections(t *testing.T) {
	x := testMux(t)
	silent, taken := dial(t, x), dial(t, x)
	_, err := taken.Write([]byte("R\x02me"))
	require.NoError(t, err)
	_, err = x.raft.Accept()
	require.NoError(t, err)
	waiting := dial(t, x)
	_, err = waiting.Write([]byte("R\x02me")) // nobody accepts it
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { _ = x.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
		t.Fatal("Close hangs")
	}
	for _, c := range []net.Conn{silent, taken, waiting} {
		require.True(t, closedByPeer(c, time.Second))
	}
}

// One port carries HTTP/2 beside Raft; a dial by address alone is refused.
func TestMuxCarriesBoth(t *testing.T) {
	x := testMux(t)
	srv := &http.Server{Protocols: h2c(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	})}
	go func() { _ = srv.Serve(x.rpc) }()
	defer srv.Close()
	tr := &http.Transport{Protocols: h2c(), DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			_, err = c.Write([]byte{protoRPC})
		}
		return c, err
	}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("http://" + x.ln.Addr().String())
	require.NoError(t, err)
	b, _ := io.ReadAll(resp.Body)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "HTTP/2.0", string(b))

	s := &streamLayer{subListener: x.raft, advertise: stringAddr("x:1"), dial: hooks{}.dialer()}
	_, err = s.Dial(raft.ServerAddress(x.ln.Addr().String()), time.Second)
	require.Error(t, err)
	c, err := s.Dial(raft.ServerAddress("me@"+x.ln.Addr().String()), time.Second)
	require.NoError(t, err)
	defer c.Close()
	_, err = x.raft.Accept()
	require.NoError(t, err)
	require.Equal(t, "x:1", s.Addr().String())
}

// heartbeats must come out of Consumer, where Raft's main loop takes them, although Raft sets a handler.
func TestTransportHasNoHeartbeatFastPath(t *testing.T) {
	x := testMux(t)
	book := &addressBook{}
	book.setSelf("me", x.ln.Addr().(*net.TCPAddr))
	name := ""
	tr := newTransport(x, x.ln.Addr().String(), book, hooks{}.dialer(), newHCLog(discard, "raft-net"))
	tr.filter = newRPCFilter(tr.NetworkTransport.Consumer(), &amnesia{}, &disk{}, func() uint64 { return 0 }, func() string { return name })
	defer tr.Close()
	var _ raft.WithPreVote = tr
	fast := make(chan struct{}, 1)
	tr.SetHeartbeatHandler(func(raft.RPC) { fast <- struct{}{} })
	senders := make(chan string, 2)
	go func() {
		for range 2 {
			rpc := <-tr.Consumer()
			senders <- string(rpc.Command.(*raft.AppendEntriesRequest).Addr)
			rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
		}
	}()
	req := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, Addr: []byte("a")}, Term: 1}
	var resp raft.AppendEntriesResponse
	require.NoError(t, tr.AppendEntries("me", "nowhere:1", req, &resp))
	require.True(t, resp.Success)
	require.Empty(t, fast)
	require.Equal(t, "me@1.2.3.4:5", string(tr.EncodePeer("me", "1.2.3.4:5")))
	require.Equal(t, "a", <-senders)
	name = "c" // the header of the heartbeats stays what it was when the term began
	require.NoError(t, tr.AppendEntries("me", "nowhere:1", req, &resp))
	require.Equal(t, "a#c", <-senders)
	require.Equal(t, "me@1.2.3.4:5#c", string(tr.EncodePeer("me", "1.2.3.4:5")))
}

func TestAdvertised(t *testing.T) {
	listen := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 77}
	for given, want := range map[string]string{
		"": "127.0.0.1:77", "host": "host:77", "host:0": "host:77", "host:5": "host:5", "10.0.0.1:9": "10.0.0.1:9",
		"[10.0.0.1]:9": "10.0.0.1:9", "[fd00::1]:9": "[fd00::1]:9", "[fd00::1]:0": "[fd00::1]:77",
	} {
		got, err := advertised(given, listen)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, bad := range []string{"0.0.0.0:5", ":5"} {
		_, err := advertised(bad, listen)
		require.Error(t, err)
	}
	got, err := advertised("", &net.TCPAddr{IP: net.IPv4zero, Port: 77})
	require.NoError(t, err)
	require.NotContains(t, got, "0.0.0.0")
}
