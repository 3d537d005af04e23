// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// errProc means that a file below /proc does not look as documented in proc(5).
var errProc = errors.New("not understood")

// ticks is USER_HZ, the unit of CPU times in /proc: 100 on every Linux that Go runs on.
const ticks = 100

// Usage is what a process has used so far.
type Usage struct {
	CPU  time.Duration // user and system
	RSS  int64         // bytes resident now
	Peak int64         // most bytes resident so far
}

// ReadUsage reads the usage of a process from /proc.
func ReadUsage(pid int) (Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Usage{}, err
	}
	u, err := parseUsage(stat, status)
	if err != nil {
		return Usage{}, fmt.Errorf("/proc/%d: %w", pid, err)
	}
	return u, nil
}

func parseUsage(stat, status []byte) (Usage, error) {
	// The command in parentheses may hold anything; user and system time are the 12th and 13th field behind it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return Usage{}, fmt.Errorf("stat %q: %w", stat, errProc)
	}
	var u Usage
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return Usage{}, err
		}
		u.CPU += time.Duration(n) * (time.Second / ticks)
	}
	for line := range strings.Lines(string(status)) {
		name, rest, _ := strings.Cut(line, ":")
		if name != "VmRSS" && name != "VmHWM" {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return Usage{}, err
		}
		if name == "VmRSS" {
			u.RSS = kib << 10
		} else {
			u.Peak = kib << 10
		}
	}
	return u, nil
}
