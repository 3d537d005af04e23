// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"sync"
	"time"
)

// Gap measures the longest time without a success of many clients: what somebody before a screen waits at worst.
type Gap struct {
	mu     sync.Mutex // protects what follows
	last   time.Time
	worst  time.Duration
	halted bool
}

// Gaps are those of a run: of acknowledged writes, of reads of the default level through the balancer, and of
// linearizable reads from anybody.
type Gaps struct{ Writes, Reads, Linear Gap }

func (g *Gaps) all() []*Gap { return []*Gap{&g.Writes, &g.Reads, &g.Linear} }

// Mark tells of a success.
func (g *Gap) Mark() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.openLocked(now)
	g.last = now
}

func (g *Gap) openLocked(now time.Time) {
	if !g.last.IsZero() && !g.halted {
		g.worst = max(g.worst, now.Sub(g.last))
	}
}

// Take returns the longest gap since the last Take, that which is still open included, and begins anew.
func (g *Gap) Take() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.openLocked(now)
	worst := g.worst
	g.worst = 0
	if !g.last.IsZero() {
		g.last = now // what is open was counted
	}
	return worst
}

// Halt keeps a pause of the clients from counting as a gap, until Resume.
func (g *Gap) Halt() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.openLocked(time.Now())
	g.halted = true
}

// Resume ends a Halt.
func (g *Gap) Resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.halted, g.last = false, time.Now()
}
