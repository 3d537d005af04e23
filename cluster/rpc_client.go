// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// dialTimeout bounds the making of a connection; everything else is bounded by contexts.
const dialTimeout = 2 * time.Second

// maxReply bounds an answer: the largest lists the refused samples of one entry.
const maxReply = 64 << 20

// rpcClient calls other nodes.
type rpcClient struct {
	node      *Node
	transport *http.Transport
	bulk      *http.Transport // for the files of snapshots
}

func newRPCClient(n *Node) *rpcClient {
	dial := n.cfg.hooks.dialer()
	return &rpcClient{node: n, transport: newRPCTransport(dial), bulk: newBulkTransport(dial)}
}

func newRPCTransport(dial dialFunc) *http.Transport {
	return &http.Transport{
		Protocols:       h2c(),
		IdleConnTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 5 * time.Second, // finds a peer that is gone without a word
			PingTimeout:     5 * time.Second,
		},
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			dctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			c, err := dial(dctx, addr)
			if err != nil {
				return nil, err
			}
			_ = c.SetWriteDeadline(time.Now().Add(dialTimeout))
			if _, err := c.Write([]byte{protoRPC}); err != nil {
				_ = c.Close()
				return nil, err
			}
			return c, c.SetWriteDeadline(time.Time{})
		},
	}
}

// sign says for whom a request is, and from whom.
func (c *rpcClient) sign(req *http.Request, to string) {
	req.Header.Set(headerTo, to)
	req.Header.Set(headerFrom, c.node.id)
	req.Header.Set(headerCluster, c.node.clusterID())
}

// call sends body to node id under the address that is known now, and returns the answer. Sentinels of the other
// side come back as such; anything else is a connection error. Bounded by ctx.
func (c *rpcClient) call(ctx context.Context, id, name string, body []byte) ([]byte, error) {
	addr := c.node.book.lookup(id)
	if addr == "" {
		return nil, fmt.Errorf("no address of node %s", id)
	}
	return c.callAddress(ctx, addr, id, name, body)
}

// callAddress is call to an address; id "*" takes any node.
func (c *rpcClient) callAddress(ctx context.Context, addr, id, name string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+rpcPrefix+name, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	c.sign(req, id)
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return out, nil
	}
	text := strings.TrimSpace(string(out))
	if sentinel, ok := rpcErrors[resp.Header.Get(headerError)]; ok {
		return nil, fmt.Errorf("node %s: %w: %w: %s", id, errRemote, sentinel, strings.TrimPrefix(text, sentinel.Error()+": "))
	}
	return nil, fmt.Errorf("node %s: %s: %s", id, resp.Status, text)
}

// callJSON sends and receives JSON; in may be nil, and so may out.
func (c *rpcClient) callJSON(ctx context.Context, id, name string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	b, err := c.call(ctx, id, name, body)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(b, out)
}

func (c *rpcClient) close() {
	c.transport.CloseIdleConnections()
	c.bulk.CloseIdleConnections()
}
