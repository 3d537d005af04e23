// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// SIGHUP and a changed file bring a new configuration into force; a bad one leaves the old one there, and says so.
func TestReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yml")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	write("global: {scrape_interval: 11s}")
	p := launch(t, t.TempDir(), "--config.file="+file, "--config.auto-reload", "--config.auto-reload-interval=1s")
	base := p.ready(t)
	inForce := func(interval string, ok bool) func() bool {
		return func() bool {
			_, text, err := get(base + "/api/v1/status/config")
			require.NoError(t, err)
			_, info, err := get(base + "/api/v1/status/runtimeinfo")
			require.NoError(t, err)
			var answer struct {
				Data struct{ ReloadConfigSuccess bool }
			}
			require.NoError(t, json.Unmarshal([]byte(info), &answer))
			return strings.Contains(text, "scrape_interval: "+interval) && answer.Data.ReloadConfigSuccess == ok
		}
	}
	require.True(t, inForce("11s", true)())
	hash := func() string {
		_, text, err := get(base + "/api/v1/cluster")
		require.NoError(t, err)
		_, rest, found := strings.Cut(text, `"config_hash":"`)
		require.True(t, found, text)
		return rest[:16]
	}
	first := hash()

	write("global: {scrape_interval: 12s}")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, inForce("12s", true), 15*time.Second, 50*time.Millisecond)
	require.Eventually(t, func() bool { return hash() != first }, 15*time.Second, 50*time.Millisecond)

	write("global: {scrape_interval: 13s}\nstorage: {tsdb: {out_of_order_time_window: 10m}}")
	require.Eventually(t, inForce("13s", true), 15*time.Second, 50*time.Millisecond, "found by itself")

	write("global: {scrape_interval: nonsense}")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, inForce("13s", false), 15*time.Second, 50*time.Millisecond)
	_, metrics, err := get(base + "/metrics")
	require.NoError(t, err)
	require.Contains(t, metrics, "prometheus_config_last_reload_successful 0")
	require.Contains(t, metrics, "deucalion_config_hash_info{hash=")
}
