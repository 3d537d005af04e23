// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/util/notifications"
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
	require.Eventually(t, inForce("12s", true), 60*time.Second, 50*time.Millisecond)
	require.Eventually(t, func() bool { return hash() != first }, 60*time.Second, 50*time.Millisecond)

	write("global: {scrape_interval: 13s}\nstorage: {tsdb: {out_of_order_time_window: 10m}}")
	require.Eventually(t, inForce("13s", true), 60*time.Second, 50*time.Millisecond, "found by itself")

	write("global: {scrape_interval: nonsense}")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, inForce("13s", false), 60*time.Second, 50*time.Millisecond)
	_, metrics, err := get(base + "/metrics")
	require.NoError(t, err)
	require.Contains(t, metrics, "prometheus_config_last_reload_successful 0")
	require.Contains(t, metrics, "deucalion_config_hash_info{hash=")
}

// A file that has changed since it was read is found, whoever has read it, and one that has not is not read again.
func TestAutoReloadKnowsWhatIsInForce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yml")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	write("global: {scrape_interval: 11s}")
	o, err := parse(t, "--config.file="+file, "--config.auto-reload")
	require.NoError(t, err)
	quiet := slog.New(slog.DiscardHandler)
	first, err := loadConfig(o, o.features.parser(), quiet)
	require.NoError(t, err)
	r := newReloader(o, o.features.parser(), first, notifications.NewNotifications(1, nil), quiet, prometheus.NewRegistry())
	applied, refuse := 0, error(nil)
	r.add("count", func(*config.Config) error { applied++; return refuse })
	write("global: {scrape_interval: 12s}") // while the node starts
	require.NoError(t, r.first())
	require.Equal(t, 1, applied)
	r.reloadIfChanged()
	require.Equal(t, 2, applied)
	r.reloadIfChanged()
	require.Equal(t, 2, applied)

	write("global: {scrape_interval: 13s}")
	require.NoError(t, r.reload()) // by signal or request
	require.Equal(t, 3, applied)
	r.reloadIfChanged()
	require.Equal(t, 3, applied, "it is in force already")

	write("global: {scrape_interval: 14s}")
	refuse = fmt.Errorf("not now")
	r.reloadIfChanged()
	require.Equal(t, 4, applied)
	refuse = nil
	r.reloadIfChanged()
	require.Equal(t, 5, applied, "tried again")
	r.reloadIfChanged()
	require.Equal(t, 5, applied)
}

var hashMetric = regexp.MustCompile(`deucalion_config_hash_info\{hash="(\w+)"\} 1`)

// Each node tells the hash of its own configuration, the same in its metric and through the others, also when a part of
// it has refused the configuration.
func TestNodesWithDifferentConfigurations(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two processes")
	}
	dir := t.TempDir()
	write := func(i int, text string) string {
		file := filepath.Join(dir, fmt.Sprint(i, ".yml"))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	gossip := []string{fmt.Sprintf("127.0.0.1:%d", freePort(t)), fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	var nodes []*process
	for i := range gossip {
		nodes = append(nodes, launch(t, t.TempDir(), "--cluster.bootstrap-expect=2", fmt.Sprint("--node.id=n", i), "--cluster.gossip-listen-address="+gossip[i],
			"--cluster.peer="+gossip[0], "--cluster.peer="+gossip[1], "--config.file="+write(i, fmt.Sprintf("global: {scrape_interval: 1%ds}", i))))
	}
	bases := []string{nodes[0].ready(t), nodes[1].ready(t)}
	// own awaits a hash that a node tells of itself.
	own := func(i int, not string) (hash string) {
		require.Eventually(t, func() bool {
			_, text, err := get(bases[i] + "/metrics")
			found := hashMetric.FindAllStringSubmatch(text, -1)
			if err != nil || len(found) != 1 || found[0][1] == not {
				return false
			}
			hash = found[0][1]
			return true
		}, 60*time.Second, 50*time.Millisecond)
		return hash
	}
	// told is what all nodes say of each other.
	told := func(want map[string]string) func() bool {
		return func() bool {
			for _, base := range bases {
				_, text, err := get(base + "/api/v1/cluster")
				var answer struct{ Data clusterAnswer }
				if err != nil || json.Unmarshal([]byte(text), &answer) != nil {
					return false
				}
				got := map[string]string{}
				for _, n := range answer.Data.Nodes {
					got[n.ID] = n.ConfigHash
				}
				if !maps.Equal(got, want) {
					return false
				}
			}
			return true
		}
	}
	first, second := own(0, ""), own(1, "")
	require.NotEqual(t, first, second)
	require.Eventually(t, told(map[string]string{"n0": first, "n1": second}), 60*time.Second, 50*time.Millisecond)

	write(0, fmt.Sprintf("global: {scrape_interval: 13s, query_log_file: %q}", filepath.Join(dir, "no", "such", "directory")))
	require.NoError(t, nodes[0].cmd.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, told(map[string]string{"n0": own(0, first), "n1": second}), 60*time.Second, 50*time.Millisecond)
	require.Eventually(t, func() bool { return strings.Contains(nodes[0].log.String(), "part=query_engine") }, 60*time.Second, 50*time.Millisecond)
}
