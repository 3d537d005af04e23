// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Node-to-node RPC is HTTP/2 without TLS: the requests of all goroutines share one connection per peer, and a
// deadline or a caller that leaves cancels its own request alone.

const (
	headerTo      = "X-Deucalion-To"      // id of the node that is meant
	headerFrom    = "X-Deucalion-From"    // id of the caller, for log lines
	headerCluster = "X-Deucalion-Cluster" // cluster id of the caller, "" before it knows one
	headerError   = "X-Deucalion-Error"   // which sentinel a refusal stands for
)

const rpcPrefix = "/cluster/v1/"

// Names of the calls.
const (
	rpcPropose   = "propose"
	rpcReadIndex = "read-index"
	rpcTerm      = "term"
	rpcStatus    = "status"
	rpcAwait     = "await"
	rpcPromise   = "promise"
	rpcWhoami    = "whoami"

	rpcSnapshotFile = "snapshot-file" // GET, streams; see catchup_source.go
	rpcDigest       = "digest"
	rpcImport       = "import"
	rpcImportFile   = "import-file" // GET, streams; see import_fetch.go
	rpcVerdict      = "digest-verdict"

	rpcTransfer = "transfer-leader"
	rpcRemove   = "remove-peer"
)

// rpcErrors are the sentinels that travel.
var rpcErrors = map[string]error{
	"no-leader":  ErrNoLeader,
	"not-leader": errNotLeader,
	"overloaded": ErrOverloaded,
	"disk-full":  ErrDiskFull,
	"too-large":  ErrTooLarge,
	"stopped":    ErrStopped,
	"no-handler": ErrNoHandler,
	"fsm-failed": ErrFSMFailed,
	"wrong-node": ErrWrongNode,
	"deadline":   context.DeadlineExceeded,

	"unknown-node": ErrUnknownNode,
	"refused":      ErrRefused,
	"transfer":     ErrTransfer,
}

// h2c is HTTP/2 with prior knowledge on both sides.
func h2c() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// rpcServer answers the calls of other nodes.
type rpcServer struct {
	node *Node
	http *http.Server
	wg   sync.WaitGroup
}

type rpcHandler func(ctx context.Context, body []byte) ([]byte, error)

func newRPCServer(n *Node) *rpcServer {
	s := &rpcServer{node: n}
	mux := http.NewServeMux()
	handle := func(name string, maxBody int64, h rpcHandler) {
		mux.HandleFunc("POST "+rpcPrefix+name, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, maxBody, h) })
	}
	const small = 64 << 10
	handle(rpcPropose, MaxEntryBytes, n.handlePropose)
	handle(rpcReadIndex, 0, n.handleReadIndex)
	handle(rpcTerm, 0, n.handleTerm)
	handle(rpcStatus, 0, n.handleStatus)
	handle(rpcAwait, small, n.handleAwait)
	handle(rpcPromise, small, n.handlePromise)
	handle(rpcWhoami, 0, n.handleWhoami)
	stream := func(name string, h http.HandlerFunc) {
		mux.HandleFunc("GET "+rpcPrefix+name, func(w http.ResponseWriter, r *http.Request) {
			if err := s.check(r); err != nil {
				refuse(w, err)
				return
			}
			h(w, r)
		})
	}
	stream(rpcSnapshotFile, n.source.serve)
	stream(rpcImportFile, n.imports.serve)
	mux.HandleFunc(rpcPrefix+rpcPeer+"/", s.servePeer)
	handle(rpcDigest, small, n.handleDigest)
	handle(rpcImport, MaxEntryBytes, n.handleImport)
	handle(rpcVerdict, 1<<20, n.handleVerdict)
	handle(rpcTransfer, small, n.atLeaderHandler(n.transferHere))
	handle(rpcRemove, small, n.atLeaderHandler(n.removeHere))
	s.http = &http.Server{
		Handler:           mux,
		Protocols:         h2c(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          1024,
			MaxReceiveBufferPerStream:     4 << 20,
			MaxReceiveBufferPerConnection: 16 << 20,
			SendPingTimeout:               5 * time.Second,
			PingTimeout:                   5 * time.Second,
		},
	}
	return s
}

func (s *rpcServer) start() {
	s.wg.Go(func() { _ = s.http.Serve(s.node.mux.rpc) }) // ends with ErrServerClosed
}

// close waits a moment for requests under way, then cuts them.
func (s *rpcServer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 250*time.Millisecond)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
	s.wg.Wait()
}

// serve checks for whom the call is, and puts a sentinel into a header.
func (s *rpcServer) serve(w http.ResponseWriter, r *http.Request, maxBody int64, h rpcHandler) {
	err := s.check(r)
	var out []byte
	if err == nil {
		var body []byte
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if tooBig := (*http.MaxBytesError)(nil); errors.As(err, &tooBig) {
			err = ErrTooLarge
		}
		if err == nil {
			out, err = h(r.Context(), body)
		}
	}
	if err == nil {
		_, _ = w.Write(out)
		return
	}
	refuse(w, err)
}

// refuse answers with err, and names the sentinel in it.
func refuse(w http.ResponseWriter, err error) {
	for name, sentinel := range rpcErrors {
		if errors.Is(err, sentinel) {
			w.Header().Set(headerError, name)
		}
	}
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}

// check refuses what was meant for the node that had this address before.
func (s *rpcServer) check(r *http.Request) error {
	if to := r.Header.Get(headerTo); to != s.node.id && to != "*" {
		return fmt.Errorf("%w: this is %s, not %s", ErrWrongNode, s.node.id, to)
	}
	return sameCluster(r.Header.Get(headerCluster), s.node.clusterID())
}

// sameCluster returns an error if the ids are of two clusters. A node that does not know its own yet may talk with all.
func sameCluster(theirs, ours string) error {
	if theirs != "" && ours != "" && theirs != ours {
		return fmt.Errorf("%w: this is cluster %s, not %s", ErrWrongNode, ours, theirs)
	}
	return nil
}

// clusterID is "" until the first leader's settings have been applied here.
func (n *Node) clusterID() string { return n.fsm.Settings().ClusterID }

// jsonReply marshals v as an answer.
func jsonReply(v any) ([]byte, error) { return json.Marshal(v) }
