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

	"github.com/prometheus/prometheus/util/netconnlimit"
)

// server serves one handler on all listeners.
type server struct {
	listeners []net.Listener
	logger    *slog.Logger
	http      *http.Server // nil until start
	running   sync.WaitGroup
}

// listen opens all addresses. maxConnections bounds the connections of all of them together.
func listen(addresses []string, maxConnections int, logger *slog.Logger) (*server, error) {
	s := &server{logger: logger}
	slots := netconnlimit.NewSharedSemaphore(maxConnections)
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, errors.Join(err, s.stop(context.Background()))
		}
		logger.Info("Listening for HTTP", "address", l.Addr().String())
		s.listeners = append(s.listeners, netconnlimit.SharedLimitListener(l, slots))
	}
	return s, nil
}

// address is the first one listened on.
func (s *server) address() net.Addr { return s.listeners[0].Addr() }

// start serves until stop. If serving ends by itself, failed gets the reason; it must have room for one.
func (s *server) start(h http.Handler, readTimeout time.Duration, failed chan<- error) {
	s.http = &http.Server{
		Handler:     h,
		ErrorLog:    slog.NewLogLogger(s.logger.Handler(), slog.LevelError),
		ReadTimeout: readTimeout,
	}
	for _, l := range s.listeners {
		s.running.Go(func() {
			if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
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
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.running.Wait()
	return err
}
