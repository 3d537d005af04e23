// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"sync"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

// alertmanagers discovers Alertmanagers on every node, so that a new leader knows them when it fires its first alert.
type alertmanagers struct {
	manager *discovery.Manager
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu     sync.Mutex // protects the following
	groups map[string][]*targetgroup.Group
	moved  chan struct{} // closed and replaced when groups change
}

func findAlertmanagers(o RulerOptions) (*alertmanagers, error) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &alertmanagers{cancel: cancel, moved: make(chan struct{})}
	a.manager = discovery.NewManager(ctx, o.Logger.With("component", "discovery manager notify"), o.Registerer, o.SDMetrics, discovery.Name("notify"))
	if a.manager == nil {
		cancel()
		return nil, errors.New("alertmanager discovery: metrics cannot be registered")
	}
	a.wg.Go(func() { _ = a.manager.Run() }) // ends with its context's error
	a.wg.Go(func() {
		for groups := range a.manager.SyncCh() {
			a.set(groups)
		}
	})
	return a, nil
}

func (a *alertmanagers) set(groups map[string][]*targetgroup.Group) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.groups = groups
	close(a.moved)
	a.moved = make(chan struct{})
}

// latest returns what was found, and a channel that is closed when that changes.
func (a *alertmanagers) latest() (map[string][]*targetgroup.Group, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.groups, a.moved
}

func (a *alertmanagers) applyConfig(c *config.Config) error {
	configs := make(map[string]discovery.Configs)
	for name, am := range c.AlertingConfig.AlertmanagerConfigs.ToMap() {
		configs[name] = am.ServiceDiscoveryConfigs
	}
	return a.manager.ApplyConfig(configs)
}

func (a *alertmanagers) stop() {
	a.cancel()
	a.wg.Wait()
}
