// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package netns makes hosts for tests out of Linux network namespaces: each has an address on
// a bridge that the test's own namespace is on as well, can be unplugged, and has a packet
// filter of its own, so that the network between processes fails as networks do. It takes root,
// iproute2 and iptables.
package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Net is a bridge and its hosts.
type Net struct {
	// Addr is the address of the test itself, as the hosts see it.
	Addr string
	// Hosts are the namespaces.
	Hosts []*Host

	bridge string
	lock   *os.File // held as long as the net is there
}

// Host is a namespace.
type Host struct {
	// Addr is its IP address.
	Addr string

	name, port string // of the namespace, and of the bridge's end of its cable
}

// ErrUnavailable means that this machine makes no namespaces: no root, or a program is missing.
var ErrUnavailable = errors.New("no network namespaces")

// Check tells whether there can be a Net; the error wraps ErrUnavailable.
func Check() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: not root", ErrUnavailable)
	}
	for _, program := range []string{"ip", "iptables", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return nil
}

// New makes n hosts on a bridge; number, of 0 to 255, keeps it apart from other nets of the machine. What an earlier
// process has left behind under the number is removed; a net that is in use is left alone, which is an error.
func New(number, n int) (*Net, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	if number < 0 || number > 255 || n < 1 || n > 200 {
		return nil, fmt.Errorf("net %d of %d hosts: out of range", number, n)
	}
	w := &Net{Addr: fmt.Sprintf("10.213.%d.1", number), bridge: fmt.Sprintf("deucalion%d", number)}
	for i := range n {
		w.Hosts = append(w.Hosts, &Host{
			Addr: fmt.Sprintf("10.213.%d.%d", number, 11+i),
			name: fmt.Sprintf("deucalion%d-%d", number, i+1),
			port: fmt.Sprintf("dcl%dp%d", number, i+1),
		})
	}
	if err := w.take(number); err != nil {
		return nil, err
	}
	_ = w.remove()
	if err := w.up(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *Net) up() error {
	steps := []string{
		"link add " + w.bridge + " type bridge",
		"addr add " + w.Addr + "/24 dev " + w.bridge,
		"link set " + w.bridge + " up",
	}
	for _, h := range w.Hosts {
		steps = append(steps,
			"netns add "+h.name,
			"link add "+h.port+" type veth peer name eth0 netns "+h.name,
			"link set "+h.port+" master "+w.bridge+" up",
			"-n "+h.name+" link set lo up",
			"-n "+h.name+" addr add "+h.Addr+"/24 dev eth0",
			"-n "+h.name+" link set eth0 up",
		)
	}
	for _, step := range steps {
		if err := run("ip", strings.Fields(step)...); err != nil {
			return err
		}
	}
	return nil
}

// take keeps other processes off the number.
func (w *Net) take(number int) (err error) {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("deucalion-net-%d", number))
	if w.lock, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666); err != nil {
		return err
	}
	if err := syscall.Flock(int(w.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("net %d is in use: %w", number, err), w.lock.Close())
	}
	return nil
}

// Close removes the bridge and the namespaces; programs in them should have ended. A second one does nothing.
func (w *Net) Close() error {
	if w.lock == nil {
		return nil
	}
	lock := w.lock
	w.lock = nil
	return errors.Join(w.remove(), lock.Close())
}

func (w *Net) remove() error {
	var errs []error
	for _, h := range w.Hosts {
		// First the cable: a namespace lasts as long as a process in it, and so would the cable.
		errs = append(errs, unlink(h.port))
		if _, err := os.Stat("/run/netns/" + h.name); err == nil {
			errs = append(errs, run("ip", "netns", "del", h.name))
		}
	}
	return errors.Join(append(errs, unlink(w.bridge))...)
}

// unlink removes a link if it is there; the kernel may be about to do so itself.
func unlink(name string) error {
	there := func() bool {
		_, err := os.Stat("/sys/class/net/" + name)
		return err == nil
	}
	if !there() {
		return nil
	}
	if err := run("ip", "link", "del", name); err != nil && there() {
		return err
	}
	return nil
}

// Command is how a program is started on the host: it and its arguments follow.
func (h *Host) Command() []string { return []string{"ip", "netns", "exec", h.name} }

// Unplug pulls the host's cable: nothing comes in or goes out, and nobody is told.
func (h *Host) Unplug() error { return run("ip", "link", "set", h.port, "down") }

// Plug puts the cable back.
func (h *Host) Plug() error { return run("ip", "link", "set", h.port, "up") }

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
