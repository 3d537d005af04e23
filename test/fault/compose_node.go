// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/deucaliondb/deucalion/test/local"
)

// Errors of containers.
var (
	errUnplugged   = errors.New("not on the network")
	errNotRunning  = errors.New("does not run")
	errExitCode    = errors.New("exit code")
	errEnvironment = errors.New("a container's environment cannot be changed")
)

// containerNode is the process of a node in a container. The engine starts one again that has ended by itself.
type containerNode struct {
	docker
	name, id string
	cables   []cable
}

// cable is a node's place on a network.
type cable struct{ network, ip string }

// node makes the Node of a service.
func (c *Compose) node(service types.ServiceConfig) *Node {
	p := &containerNode{docker: c.docker, name: service.Name, id: c.ids[service.Name]}
	n := &Node{Process: p, Name: service.Name, Dir: c.disk(service.Name), Enter: p.enter, Unplug: p.unplug, Plug: p.plug}
	for _, network := range []string{"cluster", "client"} {
		ip := service.Networks[network].Ipv4Address
		p.cables = append(p.cables, cable{network: c.project.Networks[network].Name, ip: ip})
		n.Addrs = append(n.Addrs, ip)
		n.URL = "http://" + ip + ":9090"
	}
	return n
}

// Start starts the container. It leaves one alone that runs, for the engine may have been faster; one that ends again and
// again it starts at once, while the engine waits up to a minute.
func (n *containerNode) Start(env ...string) error {
	if len(env) > 0 {
		return fmt.Errorf("%s: %w", n.name, errEnvironment)
	}
	s, err := n.state()
	if err != nil {
		return err
	}
	if s.State.Restarting {
		if err := n.Kill(); err != nil {
			return err
		}
	}
	_, err = n.call("start", n.id)
	return err
}

// Kill does so until the engine agrees: it may be about to start one that has ended by itself, and learns of such an end
// some seconds late.
func (n *containerNode) Kill() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return local.Poll(ctx, func(context.Context) error {
		s, err := n.state()
		if err != nil || !s.State.Running {
			return err
		}
		if _, err := n.call("kill", "--signal", "KILL", n.id); err != nil {
			return err
		}
		return fmt.Errorf("%s: %w", n.name, local.ErrRunning)
	})
}

func (n *containerNode) Stop() error {
	s, err := n.state()
	if err != nil || !s.State.Running {
		return err
	}
	if _, err := n.call("stop", "--time", "60", n.id); err != nil {
		return err
	}
	s, err = n.state()
	switch {
	case err != nil:
		return err
	case s.State.ExitCode == 137:
		return fmt.Errorf("%s: %w", n.name, local.ErrSlowStop)
	case s.State.ExitCode != 0:
		return fmt.Errorf("%s: %w %d", n.name, errExitCode, s.State.ExitCode)
	}
	return nil
}

// Pause freezes all threads of the container at once.
func (n *containerNode) Pause() error {
	s, err := n.state()
	if err != nil || s.State.Paused {
		return err
	}
	_, err = n.call("pause", n.id)
	return err
}

func (n *containerNode) Resume() error {
	s, err := n.state()
	if err != nil || !s.State.Paused {
		return err
	}
	_, err = n.call("unpause", n.id)
	return err
}

// Running is false while the engine waits before it starts the container again.
func (n *containerNode) Running() bool { return n.PID() != 0 }

func (n *containerNode) PID() int {
	s, err := n.state()
	if err != nil || s.State.Restarting || s.State.Pid == 0 {
		return 0
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", s.State.Pid)); err != nil {
		return 0 // ended, and the engine does not know yet
	}
	return s.State.Pid
}

func (n *containerNode) state() (container, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dockerTimeout)
	defer cancel()
	return n.inspect(ctx, n.id)
}

func (n *containerNode) enter() ([]string, error) {
	pid := n.PID()
	if pid == 0 {
		return nil, fmt.Errorf("%s: %w", n.name, errNotRunning)
	}
	return []string{"nsenter", "--target", strconv.Itoa(pid), "--net"}, nil
}

// unplug takes both interfaces away, first the one between the nodes: nothing comes in or goes out, connections are not
// ended, and listeners stay.
func (n *containerNode) unplug() error {
	s, err := n.state()
	if err != nil {
		return err
	}
	for _, c := range n.cables {
		if _, there := s.NetworkSettings.Networks[c.network]; !there {
			continue
		}
		if _, err := n.call("network", "disconnect", c.network, n.id); err != nil {
			return err
		}
	}
	return nil
}

// plug puts it back on both networks, with the addresses and the name that it had.
func (n *containerNode) plug() error {
	s, err := n.state()
	if err != nil {
		return err
	}
	for _, c := range n.cables {
		// The engine gives a container that is started without any network one of them, with any address.
		if at, there := s.NetworkSettings.Networks[c.network]; there {
			if at.IPAMConfig.IPv4Address == c.ip {
				continue
			}
			if _, err := n.call("network", "disconnect", c.network, n.id); err != nil {
				return err
			}
		}
		if _, err := n.call("network", "connect", "--ip", c.ip, "--alias", n.name, c.network, n.id); err != nil {
			return err
		}
	}
	return nil
}
