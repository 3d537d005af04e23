// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package freeport finds ports for the servers of tests.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// errNoPort means that the machine has no free port left where Ports looks.
var errNoPort = errors.New("no free port")

// Ports are TCP and UDP ports of 127.0.0.1 which this process may hand to servers until Release.
type Ports struct {
	locks []*os.File
}

// Take gives one more port, free for TCP and for UDP. It lies below the kernel's range for outgoing
// connections, so that nobody is given it while its server is down between a kill and a restart, and a
// lock file keeps other test processes off it for the same reason.
func (p *Ports) Take() (int, error) {
	dir := filepath.Join(os.TempDir(), "deucalion-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return 0, err
	}
	for range 1000 {
		port := 12000 + rand.IntN(20000)
		lock, err := lockPort(dir, port)
		if err != nil {
			continue
		}
		p.locks = append(p.locks, lock)
		if free(port) {
			return port, nil
		}
	}
	return 0, errNoPort
}

// Release gives all ports back.
func (p *Ports) Release() {
	for _, lock := range p.locks {
		lock.Close()
	}
	p.locks = nil
}

func lockPort(dir string, port int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(port)), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func free(port int) bool {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	defer udp.Close()
	return true
}
