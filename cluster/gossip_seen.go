// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
)

// seenFile holds where the members of the Raft configuration were last seen. A node that starts under a new address
// without a peer flag (the first one of a cluster often has none) finds the others by it; they cannot find it.
const seenFile = "seen.json"

// seenAt are the addresses of one node.
type seenAt struct {
	Gossip string `json:"gossip"`
	Raft   string `json:"raft"`
}

// loadSeen is best effort: the file only adds places to look.
func (g *gossip) loadSeen() {
	var err error
	if g.seen, err = parseSeen(g.seenPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		g.logger.Warn("Cannot read where the other nodes were", "file", g.seenPath(), "err", err)
	}
}

// parseSeen never returns nil.
func parseSeen(path string) (map[string]seenAt, error) {
	seen := make(map[string]seenAt)
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &seen)
	}
	if err != nil || seen == nil {
		seen = make(map[string]seenAt)
	}
	return seen, err
}

// keepSeen writes the file when it has changed. Called by one goroutine.
func (g *gossip) keepSeen() {
	members := make(map[string]seenAt)
	servers := g.node.servers()
	g.mu.Lock()
	for _, s := range servers {
		if a, ok := g.seen[string(s.ID)]; ok && string(s.ID) != g.node.id {
			members[string(s.ID)] = a
		}
	}
	g.mu.Unlock()
	if len(members) == 0 || maps.Equal(members, g.written) {
		return
	}
	b, err := json.Marshal(members)
	if err == nil {
		err = writeFileDurably(g.seenPath(), b)
	}
	if err != nil {
		if g.limit.allow("seen") {
			g.logger.Warn("Cannot note where the other nodes are", "err", err)
		}
		return
	}
	g.written = members
}

func (g *gossip) seenPath() string { return filepath.Join(g.node.cfg.Dir, "raft", seenFile) }
