// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/deucaliondb/deucalion/test/client"
)

// stopTimeout is how long a server may take over a graceful stop.
const stopTimeout = 60 * time.Second

// Server is a program with an HTTP port that is started again and again with the same arguments.
// Its methods are safe for concurrent use.
type Server struct {
	// Name stands in messages.
	Name string
	// Addr is the host:port of its HTTP API.
	Addr string
	// Dir is its data directory.
	Dir string
	// Log is the file that all its runs write to.
	Log string

	bin  string
	args []string

	mu   sync.Mutex // protects proc
	proc *Process   // of the last start; nil before
}

// Client returns a client of the server's API.
func (s *Server) Client() *client.Client { return client.New("http://" + s.Addr) }

// Start runs the server, with env (NAME=value) added to the environment of this run alone; it does not wait until it
// is ready. The error wraps ErrRunning when it runs.
func (s *Server) Start(env ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		if exited, _ := s.proc.Exited(); !exited {
			return fmt.Errorf("%s: %w", s.Name, ErrRunning)
		}
	}
	proc, err := StartProcess(s.bin, s.args, s.Log, env...)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	s.proc = proc
	return nil
}

// Process is the newest run, nil before the first.
func (s *Server) Process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// PID is the process id of the newest run, 0 if it has ended.
func (s *Server) PID() int {
	if !s.Running() {
		return 0
	}
	return s.Process().PID()
}

// Running tells whether there is a process, frozen ones included.
func (s *Server) Running() bool {
	p := s.Process()
	if p == nil {
		return false
	}
	exited, _ := p.Exited()
	return !exited
}

// Kill ends the server by SIGKILL and waits for the end; one that does not run is left alone.
func (s *Server) Kill() error {
	if !s.Running() {
		return nil
	}
	return s.Process().Kill()
}

// Stop ends the server by SIGTERM; the error tells of a bad exit code or that it took over a minute.
func (s *Server) Stop() error {
	if !s.Running() {
		return nil
	}
	if err := s.Process().Stop(stopTimeout); err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	return nil
}

// Pause freezes the server by SIGSTOP: its connections stay open and nothing answers.
func (s *Server) Pause() error { return s.Process().Signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() error { return s.Process().Signal(syscall.SIGCONT) }

// Reload sends SIGHUP.
func (s *Server) Reload() error { return s.Process().Signal(syscall.SIGHUP) }

// WaitReady waits until /-/ready answers 200; the error wraps ErrExited when the process ends instead.
func (s *Server) WaitReady(ctx context.Context) error {
	c := s.Client()
	defer c.Close()
	err := Poll(ctx, func(ctx context.Context) error {
		if exited, err := s.Process().Exited(); exited {
			return fmt.Errorf("%w: %v", ErrExited, err)
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		resp, err := c.Do(ctx, http.MethodGet, "/-/ready", nil, nil)
		if err != nil {
			return err
		}
		return resp.Err()
	})
	if err != nil {
		return fmt.Errorf("%s: not ready: %w", s.Name, err)
	}
	return nil
}
