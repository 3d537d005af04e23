// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package scrape_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// Jobs come and go with the configuration file and those that it names, while all nodes answer for all of them.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".new"), []byte(text), 0o644))
		require.NoError(t, os.Rename(filepath.Join(dir, name+".new"), filepath.Join(dir, name)))
	}
	write("prometheus.yml", "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_config_files: [more/*.yml]\n")
	s := &suite{t, newFarm(t), harness.Prepare(t, local.ClusterOptions{Flags: []string{
		"--config.file=" + filepath.Join(dir, "prometheus.yml"), "--scrape.discovery-reload-interval=100ms",
	}})}
	for _, n := range s.cluster.Nodes {
		s.startNode(n)
	}
	for _, n := range s.cluster.Nodes {
		harness.WaitReady(t, n)
	}
	s.requirePools(nil)

	require.NoError(t, os.Mkdir(filepath.Join(dir, "more"), 0o755))
	write("sd.json", `[{"targets": [`+names(20)+`], "labels": {"from": "file"}}]`)
	write("more/jobs.yml", fmt.Sprintf("scrape_configs:\n- {job_name: found, proxy_from_environment: true, file_sd_configs: [{files: [%q]}]}\n"+
		"- {job_name: none, file_sd_configs: [{files: [nothing.json]}]}\n", filepath.Join(dir, "sd.json")))
	s.reload()
	s.requirePools([]string{"found", "none"})
	s.requireUp(`count(up{job="found",from="file"} == 1)`, 20)
	s.settledAt(20, time.Second, "all nodes to scrape", "n1", "n2", "n3")

	// The file of a discovery is watched.
	write("sd.json", `[{"targets": [`+names(21)+`]}]`)
	s.requireUp(`count(up{job="found",from=""} == 1)`, 21)
	s.requireUp(`count(up{job="found",from="file"}) or vector(0)`, 0)

	write("more/jobs.yml", "scrape_configs: []")
	s.reload()
	s.requirePools(nil)
}

func (s *suite) reload() {
	s.Helper()
	for _, n := range s.cluster.Nodes {
		require.NoError(s, n.Reload())
	}
}

// requirePools waits until every node shows just these scrape pools.
func (s *suite) requirePools(want []string) {
	s.Helper()
	for _, n := range s.cluster.Nodes {
		cl := n.Client()
		defer cl.Close()
		harness.Await(s.T, patience, "the scrape pools on "+n.Name, func(ctx context.Context) error {
			var data struct{ ScrapePools []string }
			if err := cl.Data(ctx, "/api/v1/scrape_pools", nil, &data); err != nil {
				return err
			}
			if fmt.Sprint(data.ScrapePools) != fmt.Sprint(want) {
				return fmt.Errorf("has %v, not %v", data.ScrapePools, want)
			}
			return nil
		})
	}
}

// requireUp waits until a query for one number gives it on every node.
func (s *suite) requireUp(query string, want int) {
	s.Helper()
	for _, n := range s.cluster.Nodes {
		cl := n.Client()
		defer cl.Close()
		harness.Await(s.T, patience, query+" on "+n.Name, func(ctx context.Context) error {
			got, err := cl.Query(ctx, query, time.Now().UnixMilli())
			if err != nil {
				return err
			}
			if len(got.Series) != 1 || got.Series[0].Points[0].Value != fmt.Sprint(want) {
				return fmt.Errorf("gives %s", got)
			}
			return nil
		})
	}
}
