// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/config"
)

var errUnsupported = errors.New("not supported by this version of Deucalion yet")

// refuseUnsupported keeps a server from starting that would ignore a part of its configuration.
func refuseUnsupported(c *config.Config) error {
	for name, used := range map[string]bool{
		"scrape_configs": len(c.ScrapeConfigs) > 0 || len(c.ScrapeConfigFiles) > 0,
		"rule_files":     len(c.RuleFiles) > 0,
		"alerting":       len(c.AlertingConfig.AlertmanagerConfigs) > 0,
		"remote_read":    len(c.RemoteReadConfigs) > 0,
	} {
		if used {
			return fmt.Errorf("section %s: %w", name, errUnsupported)
		}
	}
	return nil
}
