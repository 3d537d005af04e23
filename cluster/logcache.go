// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

const (
	logCacheEntries = 128
	logCacheBytes   = 32 << 20
)

// logCache keeps the newest entries in memory, where replication looks for them: a third more throughput at a third
// less CPU. raft.LogCache bounds only their number, and 128 entries of 32 MiB would be 4 GiB.
type logCache struct {
	logStore
	maxBytes int

	mu    sync.RWMutex // protects the following
	ring  []*raft.Log  // entry i is at i % len
	low   uint64       // smallest index that may be present
	high  uint64       // largest; 0: empty
	bytes int
}

func newLogCache(s logStore, entries, maxBytes int) *logCache {
	return &logCache{logStore: s, maxBytes: maxBytes, ring: make([]*raft.Log, entries)}
}

// GetLog implements raft.LogStore.
func (c *logCache) GetLog(i uint64, l *raft.Log) error {
	c.mu.RLock()
	e := c.ring[i%uint64(len(c.ring))]
	c.mu.RUnlock()
	if e != nil && e.Index == i {
		*l = *e
		return nil
	}
	return c.logStore.GetLog(i, l)
}

// StoreLog implements raft.LogStore.
func (c *logCache) StoreLog(l *raft.Log) error { return c.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (c *logCache) StoreLogs(ls []*raft.Log) error {
	if err := c.logStore.StoreLogs(ls); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range ls {
		slot := &c.ring[l.Index%uint64(len(c.ring))]
		c.dropLocked(slot)
		*slot = l
		c.bytes += len(l.Data)
		if c.high == 0 {
			c.low = l.Index
		}
		c.high = l.Index
	}
	for ; c.bytes > c.maxBytes && c.low <= c.high; c.low++ {
		if slot := &c.ring[c.low%uint64(len(c.ring))]; *slot != nil && (*slot).Index == c.low {
			c.dropLocked(slot)
		}
	}
	return nil
}

func (c *logCache) dropLocked(slot **raft.Log) {
	if *slot != nil {
		c.bytes -= len((*slot).Data)
		*slot = nil
	}
}

// DeleteRange implements raft.LogStore. Forgetting everything is cheap and rare.
func (c *logCache) DeleteRange(lo, hi uint64) error {
	c.mu.Lock()
	clear(c.ring)
	c.low, c.high, c.bytes = 0, 0, 0
	c.mu.Unlock()
	return c.logStore.DeleteRange(lo, hi)
}
