// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// MaxAhead is how far in the future a sample may be; the same as in Prometheus.
const MaxAhead = 10 * time.Minute

const (
	// clockOff is how far the wall clock may be from the trusted time. NTP keeps it within milliseconds; etcd warns at
	// 1 s, which a busy machine or a leap second may reach, and CockroachDB stops a node at 0.5 s, for its
	// transactions are ordered by clocks. Here nothing breaks before samples of one series come from two nodes: an
	// order of scrape intervals.
	clockOff = 10 * time.Second
	// clockTogether is how far clocks may be from each other that are right.
	clockTogether = 5 * time.Second
	// clockHeard is how long the answer of a node counts.
	clockHeard = 15 * time.Second
	// clockTrail is how long what a node makes is still doubted after its clock was wrong: a scrape is stamped when it
	// begins, and may take its timeout, 10 s if nothing else is configured.
	clockTrail = 15 * time.Second
)

// clock judges the wall clock of this node by those of the others. What the majority says is the trusted time; between
// two judgements it goes on with the monotonic clock, so that it never jumps with the wall clock.
//
// All clocks are kept as what they are ahead of the monotonic clock, which makes them constants.
type clock struct {
	wall func() time.Time
	mono func() time.Duration

	mu       sync.Mutex // protects the following
	kept     bool       // trusted counts; else nobody has agreed with this node yet, and the trusted time is the wall's
	trusted  time.Duration
	heard    map[string]reading // by node id
	off      bool               // by the last judgement
	compared bool               // enough of the others have been asked
	doubted  time.Duration      // until when, of mono, what this node stamped itself is doubted
}

// reading is the answer of another node.
type reading struct {
	at      time.Duration // of mono
	wall    time.Duration
	trusted time.Duration // if kept
	kept    bool
}

func newClock(wall func() time.Time) *clock {
	start := time.Now()
	return &clock{wall: wall, mono: func() time.Duration { return time.Since(start) }, heard: map[string]reading{}}
}

// look returns the clocks as they are now. The lock is held.
func (c *clock) look() (mono, wall, trusted time.Duration) {
	mono = c.mono()
	wall = time.Duration(c.wall().UnixNano()) - mono
	if !c.kept {
		return mono, wall, wall
	}
	return mono, wall, c.trusted
}

// judge sets the trusted time by the clocks of this node and of the others, of which there are these in the cluster, and
// tells whether the wall clock has become right or wrong.
func (c *clock) judge(others []string) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	mono, own, _ := c.look()
	walls := []time.Duration{own}
	var elders []time.Duration
	for id, r := range c.heard {
		if mono-r.at > clockHeard || !slices.Contains(others, id) {
			delete(c.heard, id)
			continue
		}
		walls = append(walls, r.wall)
		if r.kept {
			elders = append(elders, r.trusted)
		}
	}
	middle := lowerMedian(walls)
	together := 0
	for _, w := range walls {
		if (w - middle).Abs() <= clockTogether {
			together++
		}
	}
	switch {
	case len(others) == 0:
		c.kept = false // a cluster of one believes its wall clock, as Prometheus does
	case len(walls) == 1: // on its own, perhaps cut off
	case 2*together > len(walls) && (own-middle).Abs() <= clockTogether:
		c.trusted, c.kept = own, true
	case 2*together > len(walls):
		c.trusted, c.kept = middle, true
	case !c.kept && len(elders) > 0: // started anew, into a dispute: what was trusted before counts
		c.trusted, c.kept = lowerMedian(elders), true
	}
	was, limit := c.off, clockOff
	if was { // so that a clock on the edge does not go back and forth
		limit = clockTogether
	}
	c.off = c.kept && (own-c.trusted).Abs() > limit
	return c.off != was
}

func lowerMedian(ds []time.Duration) time.Duration {
	ds = slices.Sorted(slices.Values(ds))
	return ds[(len(ds)-1)/2]
}

// hear notes what another node has answered: the times in Unix milliseconds, trusted 0 if there is none, rtt the time
// that the answer took.
func (c *clock) hear(id string, wall, trusted int64, rtt time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	mono := c.mono()
	at := func(ms int64) time.Duration { return time.Duration(ms)*time.Millisecond + rtt/2 - mono }
	c.heard[id] = reading{at: mono, wall: at(wall), trusted: at(trusted), kept: trusted != 0}
}

// tell returns what others hear of this node, see hear.
func (c *clock) tell() (wall, trusted int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	mono, w, t := c.look()
	if c.kept {
		trusted = (t + mono).Milliseconds()
	}
	return (w + mono).Milliseconds(), trusted
}

// now returns the two times, and whether the wall clock is wrong. It does not wait for a judgement: a clock that has
// jumped is noticed at once.
func (c *clock) now() (wall, trusted time.Time, off bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked()
}

func (c *clock) nowLocked() (wall, trusted time.Time, off bool) {
	mono, w, t := c.look()
	off = c.off || (w-t).Abs() > clockOff
	if off {
		c.doubted = mono + clockTrail
	}
	return time.Unix(0, int64(w+mono)), time.Unix(0, int64(t+mono)), off
}

// offset is how far the wall clock is ahead of the trusted time.
func (c *clock) offset() time.Duration {
	wall, trusted, _ := c.now()
	return wall.Sub(trusted)
}

// err is nil when the wall clock is right.
func (c *clock) err() error {
	wall, trusted, off := c.now()
	if !off {
		return nil
	}
	return fmt.Errorf("%w: it says %s, and by the other nodes it is %s", ErrClockOff,
		wall.UTC().Format(time.RFC3339), trusted.UTC().Format(time.RFC3339))
}

// newest is Node.Newest.
func (c *clock) newest() (sure, never time.Time) {
	wall, trusted, _ := c.now()
	sure, never = wall.Add(MaxAhead), trusted.Add(MaxAhead)
	if never.Before(sure) {
		return never, sure
	}
	return sure, never
}

// own is Node.OwnTimes.
func (c *clock) own() (oldest, newest time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, trusted, _ := c.nowLocked()
	if c.mono() < c.doubted {
		return trusted.Add(-clockOff), trusted.Add(clockOff)
	}
	if trusted.Before(wall) {
		wall = trusted
	}
	return time.Time{}, wall.Add(MaxAhead)
}
