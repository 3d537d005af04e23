// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"fmt"
	"net"
	"net/http"
	"time"
)

// webServer is an HTTP server of this process, for the servers under test.
type webServer struct {
	listener net.Listener
	server   *http.Server
	done     chan struct{}
}

// serveWeb listens on a port of an IP address.
func serveWeb(listen string, handler http.Handler) (*webServer, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(listen, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen for the servers: %w", err)
	}
	w := &webServer{
		listener: l,
		// Peers that are frozen or cut off leave connections behind.
		server: &http.Server{Handler: handler, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute},
		done:   make(chan struct{}),
	}
	go func() {
		defer close(w.done)
		_ = w.server.Serve(l) // ends by close
	}()
	return w, nil
}

func (w *webServer) address() string { return w.listener.Addr().String() }

// close ends it and its connections.
func (w *webServer) close() error {
	err := w.server.Close()
	<-w.done
	return err
}
