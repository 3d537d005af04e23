// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/deucaliondb/deucalion/fsm"
)

// nemesis does one fault after the other.
type nemesis struct {
	t       *testing.T
	network *network
	nodes   []*partNode
	rng     *rand.Rand
	done    map[string]int

	installs float64 // of lives that are over, then of all
}

// strike does a fault for a while, heals the network, and lets the nodes come to terms.
func (m *nemesis) strike() {
	leader, rest := m.roles()
	hold := 300*time.Millisecond + upTo(m.rng, 2500*time.Millisecond)
	dice := m.rng.IntN(100)
	switch {
	case dice < 10:
		m.cut("leader from a follower", both(leader, rest[0])...)
	case dice < 28:
		m.cut("leader from all", append(both(leader, rest[0]), both(leader, rest[1])...)...)
	case dice < 38:
		m.cut("leader to all, one way", flow{leader.id, rest[0].id}, flow{leader.id, rest[1].id})
	case dice < 48:
		m.cut("all to leader, one way", flow{rest[0].id, leader.id}, flow{rest[1].id, leader.id})
	case dice < 55:
		m.cut("follower from all", append(both(leader, rest[0]), both(rest[0], rest[1])...)...)
	case dice < 65:
		m.cut("random directions", m.randomFlows()...)
	case dice < 72:
		m.slow()
	case dice < 82:
		m.transfers(hold)
		hold = 0
	case dice < 90:
		m.cut("follower out, snapshots", append(both(leader, rest[0]), both(rest[0], rest[1])...)...)
		m.outrun(rest[0], leader, rest[1])
	default:
		if m.rng.IntN(2) == 0 {
			m.cut("random directions", m.randomFlows()...)
		}
		m.restart(m.nodes[m.rng.IntN(len(m.nodes))])
		hold /= 2
	}
	time.Sleep(hold)
	m.network.heal()
	time.Sleep(upTo(m.rng, 1500*time.Millisecond))
	m.revive()
}

// roles returns the leader, as far as one is known, and the others.
func (m *nemesis) roles() (*partNode, []*partNode) {
	at := m.rng.IntN(len(m.nodes))
	for i, p := range m.nodes {
		if _, ok := p.leads(); ok {
			at = i
		}
	}
	var rest []*partNode
	for i, p := range m.nodes {
		if i != at {
			rest = append(rest, p)
		}
	}
	m.rng.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	return m.nodes[at], rest
}

func both(a, b *partNode) []flow { return []flow{{a.id, b.id}, {b.id, a.id}} }

// cut makes some cuts; every third time connections break rather than hang, and gossip is cut as well.
func (m *nemesis) cut(what string, flows ...flow) {
	refuse, gossip := m.rng.IntN(3) == 0, m.rng.IntN(3) == 0
	m.network.set(refuse, gossip, flows...)
	m.done[what]++
}

func (m *nemesis) randomFlows() []flow {
	var out []flow
	for _, a := range m.nodes {
		for _, b := range m.nodes {
			if a != b && m.rng.IntN(5) < 2 {
				out = append(out, flow{a.id, b.id})
			}
		}
	}
	return out
}

func (m *nemesis) slow() {
	m.done["slow"]++
	delays := map[flow]time.Duration{}
	for _, f := range m.randomFlows() {
		delays[f] = time.Millisecond + upTo(m.rng, 80*time.Millisecond)
	}
	m.network.slow(delays)
}

// transfers hands the leadership on and on, half of the time while connections are cut.
func (m *nemesis) transfers(hold time.Duration) {
	m.done["transfers"]++
	cuts := m.rng.IntN(2) == 0
	for start := time.Now(); time.Since(start) < hold; {
		if cuts && m.rng.IntN(3) == 0 {
			m.network.set(m.rng.IntN(2) == 0, false, m.randomFlows()...)
		}
		leader, _ := m.roles()
		leader.mu.RLock()
		if !leader.n.down {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = leader.n.TransferLeadership(ctx, "")
			cancel()
		}
		leader.mu.RUnlock()
		time.Sleep(upTo(m.rng, 200*time.Millisecond))
		if m.rng.IntN(3) == 0 {
			m.network.heal()
		}
	}
}

// outrun makes nodes shorten their logs until they no longer have what p, who is cut off, needs next.
func (m *nemesis) outrun(p *partNode, nodes ...*partNode) {
	_, last := p.n.LogBounds()
	for start := time.Now(); time.Since(start) < 10*time.Second; {
		m.fill(nodes[0])
		behind := 0
		for _, q := range nodes {
			q.mu.RLock()
			if !q.n.down {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				_ = q.n.Snapshot(ctx)
				cancel()
				if first, _ := q.n.LogBounds(); first > last+1 {
					behind++
				}
			}
			q.mu.RUnlock()
		}
		if behind == len(nodes) {
			return
		}
	}
}

// fill puts entries without effect into the log: much of the load waits for the node that is cut off.
func (m *nemesis) fill(p *partNode) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for i := 0; i < 200 && ctx.Err() == nil && !p.n.down; i++ {
		if _, err := p.n.Propose(ctx, fsm.EncodeNoop()); err != nil {
			return
		}
	}
}

// restart ends a node, gracefully or not, and starts it on its data.
func (m *nemesis) restart(p *partNode) {
	if m.rng.IntN(2) == 0 {
		m.done["stop and start"]++
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		if err := p.n.Shutdown(ctx); err != nil { // those who use it get ErrStopped
			m.t.Errorf("shutdown of %s: %v", p.id, err)
		}
		cancel()
	} else {
		m.done["crash and start"]++
		p.n.Crash()
	}
	m.again(p)
}

// again starts a node whose cluster part has ended. It has new ports then.
func (m *nemesis) again(p *partNode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m.count(p)
	p.n.down = true
	if err := p.n.fsm.Close(); err != nil {
		m.t.Errorf("close of %s: %v", p.id, err)
	}
	time.Sleep(upTo(m.rng, 500*time.Millisecond))
	p.n.start()
	p.life++
	m.network.own(p.n.Address(), p.id)
	m.network.own(p.n.GossipAddress(), p.id)
}

// revive starts what a watchdog has ended. Any other end is a defect.
func (m *nemesis) revive() {
	for _, p := range m.nodes {
		err := p.takeFatal()
		if err == nil {
			continue
		}
		if !fatalIsKnown(err) {
			m.t.Errorf("fatal on %s: %v", p.id, err)
		}
		m.done["watchdog"]++
		p.n.Crash()
		m.again(p)
	}
}

// count adds the snapshots that p took from a leader in this life.
func (m *nemesis) count(p *partNode) {
	m.installs += p.n.metric("deucalion_raft_snapshot_installs_total")
}
