// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// rpcPeer prefixes requests of the layer above: what follows is its own path.
const rpcPeer = "peer"

// ErrNoHandler: the other node does not serve requests of the layer above yet.
var ErrNoHandler = errors.New("node does not answer requests yet")

// HandlePeers lets h serve the requests that other nodes send with AskPeer. They come over the cluster's own port,
// from members only; h sees the path and the query that AskPeer was given.
func (n *Node) HandlePeers(h http.Handler) { n.peers.Store(&h) }

// AskPeer sends a request to the handler of node id, which may be this one: its path and query are uri, which begins
// with a slash. The body may be nil. The caller closes the answer's body. Bounded by ctx.
func (n *Node) AskPeer(ctx context.Context, id, method, uri string, header http.Header, body io.Reader) (*http.Response, error) {
	addr := n.book.lookup(id)
	if addr == "" {
		return nil, fmt.Errorf("no address of node %s", id)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+rpcPrefix+rpcPeer+uri, body)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	n.client.sign(req, id)
	resp, err := n.client.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if name := resp.Header.Get(headerError); name != "" {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		if sentinel, ok := rpcErrors[name]; ok {
			return nil, fmt.Errorf("node %s: %w: %w: %s", id, errRemote, sentinel, strings.TrimSpace(string(text)))
		}
		return nil, fmt.Errorf("node %s: %s", id, strings.TrimSpace(string(text)))
	}
	return resp, nil
}

// servePeer passes a request on to the layer above.
func (s *rpcServer) servePeer(w http.ResponseWriter, r *http.Request) {
	if err := s.check(r); err != nil {
		refuse(w, err)
		return
	}
	h := s.node.peers.Load()
	if h == nil {
		refuse(w, ErrNoHandler)
		return
	}
	http.StripPrefix(rpcPrefix+rpcPeer, *h).ServeHTTP(w, r)
}
