// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/mwitkow/go-conntrack"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/prometheus/prometheus/util/netconnlimit"
)

// server serves one handler on all listeners.
type server struct {
	listeners []net.Listener
	webConfig string // path of the web configuration file; "": none
	tls       bool
	logger    *slog.Logger
	http      []*http.Server // one a listener; none until start
	running   sync.WaitGroup
}

// listen opens all addresses. maxConnections bounds the connections of all of them together. webConfig is a file for
// TLS and passwords, or "".
func listen(addresses []string, maxConnections int, webConfig string, logger *slog.Logger) (*server, error) {
	s := &server{webConfig: webConfig, logger: logger}
	var err error
	if s.tls, err = readWebConfig(webConfig); err != nil {
		return nil, err
	}
	slots := netconnlimit.NewSharedSemaphore(maxConnections)
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, errors.Join(err, s.stop(context.Background()))
		}
		logger.Info("Listening for HTTP", "address", l.Addr().String(), "tls", s.tls)
		s.listeners = append(s.listeners, conntrack.NewListener(netconnlimit.SharedLimitListener(l, slots), conntrack.TrackWithName("http")))
	}
	return s, nil
}

// address is the first one listened on.
func (s *server) address() net.Addr { return s.listeners[0].Addr() }

// start serves until stop. If serving ends by itself, failed gets the reason; it must have room for one.
func (s *server) start(h http.Handler, readTimeout time.Duration, failed chan<- error) {
	for _, l := range s.listeners {
		// The toolkit puts its own handler around that of the server, hence one server a listener.
		srv := &http.Server{
			Handler:     h,
			ErrorLog:    slog.NewLogLogger(s.logger.Handler(), slog.LevelError),
			ReadTimeout: readTimeout,
		}
		if !s.tls { // with TLS the file says whether HTTP/2 is spoken
			srv.Protocols = new(http.Protocols)
			srv.Protocols.SetHTTP1(true)
			srv.Protocols.SetUnencryptedHTTP2(true) // gRPC clients know beforehand that they speak it
		}
		s.http = append(s.http, srv)
		s.running.Go(func() {
			quiet := slog.New(slog.DiscardHandler) // the toolkit would log again what listen has logged
			if s.webConfig != "" {
				quiet = s.logger
			}
			err := web.Serve(l, srv, &web.FlagConfig{WebConfigFile: &s.webConfig}, quiet)
			if !errors.Is(err, http.ErrServerClosed) {
				select {
				case failed <- err:
				default: // the first reason counts
				}
			}
		})
	}
}

// stop takes no more connections and waits for the requests under way. When ctx ends it cuts them off.
func (s *server) stop(ctx context.Context) error {
	if s.http == nil {
		var errs []error
		for _, l := range s.listeners {
			errs = append(errs, l.Close())
		}
		return errors.Join(errs...)
	}
	errs := make([]error, len(s.http))
	var stopping sync.WaitGroup
	for i, srv := range s.http {
		stopping.Go(func() {
			if errs[i] = srv.Shutdown(ctx); errs[i] != nil {
				errs[i] = errors.Join(errs[i], srv.Close())
			}
		})
	}
	stopping.Wait()
	s.running.Wait()
	return errors.Join(errs...)
}
