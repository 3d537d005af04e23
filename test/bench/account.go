// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Account follows named processes and directories over a load.
type Account struct {
	PIDs map[string]int    // processes by name
	Dirs map[string]string // directories by name

	before map[string]Usage
}

// Open reads the usages before the load.
func (a *Account) Open() error {
	var err error
	a.before, err = a.usages()
	return err
}

func (a *Account) usages() (map[string]Usage, error) {
	out := map[string]Usage{}
	for name, pid := range a.PIDs {
		u, err := ReadUsage(pid)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = u
	}
	return out, nil
}

// Cost is what a load has cost in one process or directory.
type Cost struct {
	Name          string
	CPUPerMillion float64 // CPU seconds per million acknowledged samples
	RSS, Peak     int64   // bytes
	Disk          Disk    // of the directory of the same name, zero without one
	DiskPerSample float64 // allocated bytes per acknowledged sample
}

// Close tells the costs since Open for a load that had this many samples acknowledged, in order of names.
func (a *Account) Close(samples int) ([]Cost, error) {
	after, err := a.usages()
	if err != nil {
		return nil, err
	}
	costs := map[string]*Cost{}
	for name, u := range after {
		cpu := u.CPU - a.before[name].CPU
		costs[name] = &Cost{Name: name, CPUPerMillion: cpu.Seconds() / float64(max(samples, 1)) * 1e6, RSS: u.RSS, Peak: u.Peak}
	}
	for name, dir := range a.Dirs {
		c := costs[name]
		if c == nil {
			c = &Cost{Name: name}
			costs[name] = c
		}
		if c.Disk, err = ReadDisk(dir); err != nil {
			return nil, err
		}
		c.DiskPerSample = float64(c.Disk.Allocated) / float64(max(samples, 1))
	}
	out := make([]Cost, 0, len(costs))
	for _, name := range slices.Sorted(maps.Keys(costs)) {
		out = append(out, *costs[name])
	}
	return out, nil
}

// FormatCosts writes costs as a table.
func FormatCosts(costs []Cost) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s %14s %10s %10s %12s %12s %12s\n",
		"", "CPU-s/M smpl", "RSS MiB", "peak MiB", "disk MiB", "length MiB", "disk B/smpl")
	for _, c := range costs {
		fmt.Fprintf(&b, "%-28s %14.3f %10.1f %10.1f %12.1f %12.1f %12.2f\n", c.Name, c.CPUPerMillion,
			MiB(c.RSS), MiB(c.Peak), MiB(c.Disk.Allocated), MiB(c.Disk.Apparent), c.DiskPerSample)
	}
	return b.String()
}

// MiB converts bytes.
func MiB(bytes int64) float64 { return float64(bytes) / (1 << 20) }
