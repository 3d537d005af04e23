// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"hash/maphash"
	"sync"
)

const (
	keyShards = 64
	// keysPerShard bounds each half of a shard: 64 shards of two halves hold at
	// most 2 Mi keys.
	keysPerShard = 16 << 10
)

// keyCache maps the raw bytes of a label set, as they stand in a remote-write
// request, to its series, so that a known series costs one map look-up and no
// labels are built. Keys are compared as a whole, so a hash collision does no
// harm. What was not used while a half filled up is forgotten.
type keyCache struct {
	seed   maphash.Seed
	shards [keyShards]keyShard
}

type keyShard struct {
	// mu protects the following.
	mu    sync.RWMutex
	young map[string]*series
	old   map[string]*series
	_     [64]byte // shards are hot: keep each on cache lines of its own
}

func newKeyCache() *keyCache { return &keyCache{seed: maphash.MakeSeed()} }

func (c *keyCache) shard(key []byte) *keyShard {
	return &c.shards[maphash.Bytes(c.seed, key)%keyShards]
}

// get returns the series of key, or nil.
func (c *keyCache) get(key []byte) *series {
	sh := c.shard(key)
	sh.mu.RLock()
	s := sh.young[string(key)]
	old := s == nil
	if old {
		s = sh.old[string(key)]
	}
	sh.mu.RUnlock()
	if s == nil || s.dropped.Load() {
		return nil
	}
	if old {
		c.put(key, s)
	}
	return s
}

// put remembers a copy of key.
func (c *keyCache) put(key []byte, s *series) {
	sh := c.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.young == nil || len(sh.young) >= keysPerShard {
		sh.young, sh.old = make(map[string]*series), sh.young
	}
	sh.young[string(key)] = s
}
