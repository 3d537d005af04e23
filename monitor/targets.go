// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
)

// targetSets are target groups by job, as they pass from the discovery to the scrape manager.
type targetSets map[string][]*targetgroup.Group

// identity is what sharding knows of a discovered target.
type identity struct {
	key    uint64 // for share.owns
	unique uint64 // differs between targets that the scrape manager tells apart; 0: dropped by relabelling
}

type jobGroup struct {
	job   string
	group *targetgroup.Group
}

// catalogue holds what discovery has found for all nodes. Relabelling costs, so each group is looked at once: discovery
// replaces a group that has changed. Not goroutine-safe.
type catalogue struct {
	configs map[string]*config.ScrapeConfig
	sets    targetSets
	known   map[jobGroup][]identity
}

// setConfigs puts other scrape configurations in force.
func (c *catalogue) setConfigs(configs map[string]*config.ScrapeConfig) {
	c.configs, c.known = configs, nil
	c.update(c.sets)
}

// update replaces what was found.
func (c *catalogue) update(sets targetSets) {
	known := make(map[jobGroup][]identity, len(c.known))
	builder := labels.NewBuilder(labels.EmptyLabels())
	for job, groups := range sets {
		cfg := c.configs[job]
		if cfg == nil {
			continue // it has just gone from the configuration
		}
		for _, g := range groups {
			id := jobGroup{job, g}
			if known[id] = c.known[id]; known[id] == nil {
				known[id] = identify(builder, cfg, g)
			}
		}
	}
	c.sets, c.known = sets, known
}

// identify relabels each target of a group as the scrape manager will. One that is dropped or cannot be made is known by
// the address that discovery gave it: one node shows it among the dropped ones, or logs why.
func identify(b *labels.Builder, cfg *config.ScrapeConfig, g *targetgroup.Group) []identity {
	out := make([]identity, len(g.Targets))
	for i, own := range g.Targets {
		ls, err := scrape.PopulateLabels(b, cfg, own, g.Labels)
		if err != nil || ls.IsEmpty() {
			address, ok := own[model.AddressLabel]
			if !ok {
				address = g.Labels[model.AddressLabel]
			}
			out[i] = identity{key: targetKey(cfg.JobName, string(address))}
			continue
		}
		url := scrape.NewTarget(ls, cfg, own, g.Labels).URL().String()
		out[i] = identity{key: targetKey(cfg.JobName, url), unique: ls.Hash() ^ xxhash.Sum64String(url) | 1}
	}
	return out
}

// own returns the groups with what s owns of them, and how many targets that is. A group or job of which nothing is left
// is in it, too: the scrape manager then stops what it scraped, and goes on showing the pool.
func (c *catalogue) own(s share) (sets targetSets, targets int) {
	sets = make(targetSets, len(c.sets))
	for job, groups := range c.sets {
		if c.configs[job] == nil {
			continue
		}
		unique := map[uint64]bool{}
		sets[job] = make([]*targetgroup.Group, 0, len(groups))
		for _, g := range groups {
			mine := &targetgroup.Group{Labels: g.Labels, Source: g.Source}
			for i, id := range c.known[jobGroup{job, g}] {
				if !s.owns(id.key) {
					continue
				}
				mine.Targets = append(mine.Targets, g.Targets[i])
				if id.unique != 0 {
					unique[id.unique] = true
				}
			}
			sets[job] = append(sets[job], mine)
		}
		targets += len(unique)
	}
	return sets, targets
}

// moves tells what a change of shares does: how many targets come to this node, and the keys of those that go, by job.
func (c *catalogue) moves(from, to share) (come int, gone map[string]map[uint64]bool) {
	gone = map[string]map[uint64]bool{}
	for at, ids := range c.known {
		for _, id := range ids {
			had, has := from.owns(id.key), to.owns(id.key)
			switch {
			case id.unique == 0 || had == has:
			case has:
				come++
			default:
				if gone[at.job] == nil {
					gone[at.job] = map[uint64]bool{}
				}
				gone[at.job][id.key] = true
			}
		}
	}
	return come, gone
}
