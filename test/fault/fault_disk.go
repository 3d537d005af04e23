// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// filler is the name of the file that fills a node's disk.
const filler = "filler"

// diskFaults are about disks that are full, slow, broken or lost.
func diskFaults() []Fault {
	traced := func(s *System) bool {
		_, err := exec.LookPath("strace")
		return err == nil && s.Nodes[0].PID() > 0
	}
	return []Fault{
		{Name: "disk full", Weight: 2, Possible: ownDisk, Do: one(fill)},
		{Name: "slow fsync (50 to 500 ms)", Weight: 2, Possible: traced, Do: one(slowSync)},
		{Name: "hanging fsync", Weight: 1, Possible: func(s *System) bool { return s.Cluster && traced(s) }, Do: one(hangSync)},
		{Name: "failing fsync (EIO)", Weight: 2, Possible: func(s *System) bool { return s.Cluster && traced(s) }, Do: one(failSync)},
		{Name: "disk lost (kill -9, empty directory)", Weight: 2, Possible: func(s *System) bool { return s.Nodes[0].Dir != "" }, Do: one(wipe)},
	}
}

// ownDisk tells whether the nodes have file systems of their own, so that filling one harms nobody else.
func ownDisk(s *System) bool {
	var dir, above syscall.Stat_t
	path := s.Nodes[0].Dir
	if path == "" || syscall.Stat(path, &dir) != nil || syscall.Stat(filepath.Dir(path), &above) != nil {
		return false
	}
	return dir.Dev != above.Dev
}

// fill takes all the room that a node has left, to the last byte half of the time.
func fill(ctx context.Context, n *Nemesis, node *Node) error {
	leave := int64(0)
	if n.rng.IntN(2) == 0 {
		leave = 40 << 20
	}
	path := filepath.Join(node.Dir, filler)
	err := takeRoom(path, leave)
	if err == nil {
		n.hold(ctx, time.Second, 4*time.Second)
	}
	return errors.Join(err, os.Remove(path))
}

func takeRoom(path string, leave int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := int64(0); ; {
		var s syscall.Statfs_t
		if err := syscall.Statfs(path, &s); err != nil {
			return err
		}
		room := int64(s.Bavail)*s.Bsize - leave
		if room <= 0 {
			return nil
		}
		err := syscall.Fallocate(int(f.Fd()), 0, size, room)
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINTR) { // the node writes, too
			continue
		}
		if err != nil {
			return fmt.Errorf("fill %s: %w", path, err)
		}
		size += room
	}
}

func slowSync(ctx context.Context, n *Nemesis, node *Node) error {
	delay := 50 + n.rng.IntN(450)
	return node.inject(ctx, fmt.Sprintf("delay_enter=%d", delay*1000), func() {
		n.hold(ctx, 2*time.Second, 6*time.Second)
	})
}

const (
	// endTimeout is how long a node whose disk is broken may live: a write deadline of 5 s and an end, on a machine without time.
	endTimeout = 20 * time.Second
	// endGrace is how long the end itself may take once nobody traces the process any more.
	endGrace = 15 * time.Second
)

// hangSync lets no fsync of a node come to its end for longer than it may wait: it must give up, and end.
func hangSync(ctx context.Context, _ *Nemesis, node *Node) error {
	return node.endBy(ctx, fmt.Sprintf("delay_enter=%d", (2*endTimeout).Microseconds()))
}

// failSync breaks every fsync of a node. What it has written since the last good one may be lost, so it must end and
// acknowledge none of it.
func failSync(ctx context.Context, _ *Nemesis, node *Node) error {
	return node.endBy(ctx, "error=EIO")
}

// errLives is a node that goes on with a disk on which it cannot.
var errLives = errors.New("lives on")

// endBy does something to every fsync of a node until it has ended, as it must: the load makes every node write its log all the time.
func (n *Node) endBy(ctx context.Context, what string) error {
	pid := n.PID()
	if pid == 0 {
		return nil
	}
	gone, inARow := func() bool { return n.PID() != pid }, 0
	var ended bool
	err := n.inject(ctx, what, func() {
		ended = until(ctx, endTimeout, func() bool {
			if inARow++; !exiting(pid) {
				inARow = 0
			}
			return inARow == 3 || gone()
		})
	})
	if err != nil || ctx.Err() != nil {
		return err
	}
	if !ended || !until(ctx, endGrace, gone) {
		return fmt.Errorf("%s: %w, its fsync with %s", n.Name, errLives, what)
	}
	return nil
}

// until waits until something is so, or timeout is over.
func until(ctx context.Context, timeout time.Duration, so func() bool) bool {
	end := time.Now().Add(timeout)
	for !so() {
		if time.Now().After(end) || ctx.Err() != nil {
			return false
		}
		pause(ctx, 50*time.Millisecond)
	}
	return true
}

// exiting tells whether a process has called exit, and all that is left of it are threads that are dead or that strace holds: it
// does so with one in a call that it delays, until the delay is over.
func exiting(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false
	}
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) { // dead since
			continue
		}
		_, state, _ := strings.Cut(string(text), ") ")
		if err != nil || state == "" || !strings.Contains("tZX", state[:1]) {
			return false
		}
	}
	return true
}

// inject does something to every fsync of a node's process while during runs.
func (n *Node) inject(ctx context.Context, what string, during func()) error {
	pid := n.PID()
	if pid == 0 {
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(ctx, "strace", "-f", "-qqq", "-o", "/dev/null", "-p", fmt.Sprint(pid),
		"-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:"+what)
	var message strings.Builder
	cmd.Stderr = &message
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// SIGTERM makes it let go of the process, if it is not just waiting on behalf of a call; SIGKILL does at any time.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	during()
	select {
	case err := <-done:
		if n.PID() == pid {
			return fmt.Errorf("strace: ended too early: %w: %s", err, message.String())
		}
	default:
		stop()
		<-done
	}
	return nil
}

// wipe takes a node its disk: all that it had comes back from the others.
func wipe(ctx context.Context, n *Nemesis, node *Node) error {
	if err := node.Kill(); err != nil {
		return err
	}
	if err := node.empty(); err != nil {
		return err
	}
	n.hold(ctx, 10*time.Millisecond, 2*time.Second)
	return nil
}

// empty removes all in a node's data directory, not the directory, which is a mount.
func (n *Node) empty() error {
	entries, err := os.ReadDir(n.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(n.Dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
