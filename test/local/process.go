// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package local runs real servers as processes on the loopback interface: nodes of
// Deucalion, and a stock Prometheus to hold them against. Processes can be killed,
// frozen and started again on the same data and the same ports, and none of them
// outlives the program that started it. The package knows nothing of testing, so that
// benchmarks use it as well.
package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Errors of this package.
var (
	// ErrRunning is given by a start of what runs already.
	ErrRunning = errors.New("already running")
	// ErrExited is given by a wait for a process that has ended instead.
	ErrExited = errors.New("process has ended")
	// ErrSlowStop is given by Stop when SIGTERM was not enough.
	ErrSlowStop = errors.New("did not stop in time, killed")
)

// Process is a running or ended child process. Its methods are safe for concurrent use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; read only after done is closed
}

// StartProcess runs bin with args, its output appended to the file logPath. env, in the form NAME=value, is added to
// this process's environment.
func StartProcess(bin string, args []string, logPath string, env ...string) (*Process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(bin, args...)
	cmd.Stdout, cmd.Stderr = log, log
	// A race report ends the process, so that no test can overlook it.
	cmd.Env = append(append(os.Environ(), "GORACE=halt_on_error=1"), env...)
	// Its own process group: Ctrl-C in the terminal reaches the tests, which stop it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(log, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", bin, err)
	}
	return p, nil
}

// run starts the child and waits for it on one OS thread: Pdeathsig fires when the starting thread ends,
// and Go ends threads at will unless a goroutine holds on to them.
func (p *Process) run(log *os.File, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer log.Close()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends sig; a process that has ended gives os.ErrProcessDone.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill ends the process by SIGKILL and waits for its end.
func (p *Process) Kill() error {
	err := p.Signal(syscall.SIGKILL)
	<-p.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Stop asks by SIGTERM and waits. The error tells of an exit code other than 0, or wraps ErrSlowStop
// when the process had to be killed after timeout.
func (p *Process) Stop(timeout time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		return errors.Join(fmt.Errorf("%w: pid %d after %s", ErrSlowStop, p.PID(), timeout), p.Kill())
	}
}

// Exited tells whether the process has ended, and how.
func (p *Process) Exited() (bool, error) {
	select {
	case <-p.done:
		return true, p.err
	default:
		return false, nil
	}
}

// Poll calls f every 20 ms until it gives nil or ctx ends; the error then holds f's last one.
func Poll(ctx context.Context, f func(context.Context) error) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if errors.Is(err, ErrExited) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-ticker.C:
		}
	}
}
