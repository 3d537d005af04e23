// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !remove_all_sd

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/discovery"
	"github.com/stretchr/testify/require"
)

// moreDiscoveries are those that Prometheus's own test file does not have.
const moreDiscoveries = `
scrape_configs:
- job_name: aws
  aws_sd_configs: [{role: ec2, region: us-east-1}]
  ecs_sd_configs: [{region: us-east-1}]
  elasticache_sd_configs: [{region: us-east-1}]
  msk_sd_configs: [{region: us-east-1}]
  rds_sd_configs: [{region: us-east-1}]
- {job_name: gce, gce_sd_configs: [{project: p, zone: z}]}
- {job_name: serverset, serverset_sd_configs: [{servers: [localhost], paths: [/p]}]}
`

// The file with which Prometheus tests that it reads everything: each section, and with a second one each kind of service
// discovery.
func TestConfigWithEverything(t *testing.T) {
	module, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/prometheus").Output()
	require.NoError(t, err)
	from := filepath.Join(strings.TrimSpace(string(module)), "config", "testdata")
	text, err := os.ReadFile(filepath.Join(from, "conf.good.yml"))
	require.NoError(t, err)
	rules, err := os.ReadFile(filepath.Join(from, "first.rules"))
	require.NoError(t, err)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"prometheus.yml": string(text) + "\nscrape_config_files: [more.yml]\n", "first.rules": string(rules), "more.yml": moreDiscoveries,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	c, err := loadFrom(t, dir)
	require.NoError(t, err)

	jobs, err := c.file.GetScrapeConfigs()
	require.NoError(t, err)
	kinds := map[string]bool{}
	for _, job := range jobs {
		for _, sd := range job.ServiceDiscoveryConfigs {
			kinds[sd.Name()] = true
		}
	}
	for _, name := range discovery.RegisteredConfigNames() {
		if !kinds[name] {
			t.Errorf("no scrape config has %s", name)
		}
	}
	require.Greater(t, len(kinds), 25)
	require.Len(t, c.file.RemoteWriteConfigs, 2)
	require.Len(t, c.file.RemoteReadConfigs, 2)
	require.Len(t, c.file.AlertingConfig.AlertmanagerConfigs, 1)
	require.Equal(t, "localhost:4317", c.file.TracingConfig.Endpoint)
	require.Len(t, c.file.OTLPConfig.PromoteResourceAttributes, 3)
	require.Equal(t, 42, c.file.Runtime.GoGC)
	require.Equal(t, 30*time.Minute, c.settings().OutOfOrderWindow)
	require.Equal(t, 24*time.Hour, c.retention(dir).time)
	require.NotEqual(t, "none", c.hash)
}
