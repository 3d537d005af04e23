// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/internal/freeport"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// scraper is a stock Prometheus that scrapes targets which can be taken away from it, and remote-writes.
type scraper struct {
	*local.Stock

	targets string // directory of the target lists, one file a job
}

// newScraper starts a Prometheus that scrapes every second and writes to the node receiver. Its queue is as
// it comes, but for nothing.
func newScraper(t *testing.T, receiver *local.Server, jobs map[string][]string) *scraper {
	t.Helper()
	s := &scraper{targets: t.TempDir()}
	yaml := fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 1s}\n"+
		"remote_write: [{url: 'http://%s/api/v1/write'}]\nscrape_configs:\n", receiver.Addr)
	for job, addrs := range jobs {
		s.setTargets(t, job, addrs)
		yaml += fmt.Sprintf("- {job_name: %s, file_sd_configs: [{files: ['%s'], refresh_interval: 1s}]}\n", job, s.file(job))
	}
	s.Stock = harness.Stock(t, local.StockOptions{Config: yaml})
	return s
}

func (s *scraper) file(job string) string { return filepath.Join(s.targets, job+".json") }

// setTargets replaces the targets of a job. With none the scrape loops end as they do when a target goes away:
// with stale markers.
func (s *scraper) setTargets(t *testing.T, job string, addrs []string) {
	t.Helper()
	groups := []map[string][]string{}
	if len(addrs) > 0 {
		groups = append(groups, map[string][]string{"targets": addrs})
	}
	text, err := json.Marshal(groups)
	require.NoError(t, err)
	next := s.file(job) + ".next"
	require.NoError(t, os.WriteFile(next, text, 0o644))
	require.NoError(t, os.Rename(next, s.file(job)))
}

// newExporter starts Debian's node exporter.
func newExporter(t *testing.T) *local.Server {
	t.Helper()
	ports := &freeport.Ports{}
	t.Cleanup(ports.Release)
	e, err := local.NewProgram("prometheus-node-exporter", t.TempDir(), ports, func(addr string) []string {
		return []string{"--web.listen-address=" + addr}
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := e.Kill(); err != nil {
			t.Error(err)
		}
	})
	require.NoError(t, e.Start())
	return e
}

// staleMarker is the value by which Prometheus marks the end of a series.
const staleMarker = 0x7ff0000000000002

// ended tells whether the last sample of every series is a stale marker.
func ended(data client.Data) error {
	for _, key := range data.Keys() {
		if samples := data[key]; len(samples) == 0 || samples[len(samples)-1].Bits != staleMarker {
			return fmt.Errorf("%w: %s", errNotEnded, key)
		}
	}
	return nil
}
