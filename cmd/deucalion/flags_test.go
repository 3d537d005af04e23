// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"math"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/internal/freeport"
)

func freePort(t *testing.T) int {
	t.Helper()
	var ports freeport.Ports
	t.Cleanup(ports.Release)
	port, err := ports.Take()
	require.NoError(t, err)
	return port
}

func parse(t *testing.T, args ...string) (*options, error) {
	t.Helper()
	var out bytes.Buffer
	o, exit, err := parseFlags(args, &out, &out)
	require.Nil(t, exit)
	return o, err
}

func TestFlagDefaults(t *testing.T) {
	o, err := parse(t)
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"config.file": "prometheus.yml", "config.auto-reload": "false", "config.auto-reload-interval": "30s", "enable-feature": "",
		"log.level": "info", "log.format": "logfmt",
		"auto-gomaxprocs": "true", "auto-gomemlimit": "true", "auto-gomemlimit.ratio": "0.9", "auto-gomemlimit.refresh-interval": "0s",
		"web.listen-address": "0.0.0.0:9090", "web.read-timeout": "5m", "web.max-connections": "512", "web.external-url": "",
		"web.cors.origin": ".*", "web.enable-admin-api": "false", "web.enable-remote-write-receiver": "true",
		"web.config.file": "", "web.max-notifications-subscribers": "16", "web.route-prefix": "", "web.user-assets": "",
		"web.enable-lifecycle": "false", "web.enable-otlp-receiver": "false", "web.console.templates": "consoles",
		"web.console.libraries": "console_libraries", "web.search.max-limit": "10000", "web.page-title": "Deucalion Time Series Collection and Processing Server",
		"web.remote-write-receiver.accepted-protobuf-messages": "prometheus.WriteRequest,io.prometheus.write.v2.Request",
		"storage.tsdb.path": "data/", "storage.tsdb.retention.time": "0s", "storage.tsdb.retention.size": "0B", "storage.scrub-interval": "1d",
		"storage.remote.read-sample-limit": "50000000", "storage.min-free": "1GiB", "storage.remote.flush-deadline": "1m",
		"storage.remote.read-concurrent-limit": "10", "storage.remote.read-max-bytes-in-frame": "1048576",
		"query.lookback-delta": "5m", "query.timeout": "2m", "query.max-concurrency": "20", "query.max-samples": "50000000",
		"query.consistency": "bounded", "query.max-staleness": "10s",
		"scrape.shard": "spread", "scrape.adjust-timestamps": "true", "scrape.timestamp-tolerance": "2ms", "scrape.discovery-reload-interval": "5s",
		"rules.alert.for-outage-tolerance": "1h", "rules.alert.for-grace-period": "10m", "rules.alert.resend-delay": "1m", "rules.max-concurrent-evals": "4",
		"alertmanager.notification-queue-capacity": "10000", "alertmanager.notification-batch-size": "256",
		"alertmanager.drain-notification-queue-on-shutdown": "true",
		"node.id": "", "cluster.listen-address": "0.0.0.0:9190", "cluster.advertise-address": "",
		"cluster.gossip-listen-address": "0.0.0.0:9191", "cluster.gossip-advertise-address": "",
		"cluster.peer": "", "cluster.bootstrap-expect": "1", "cluster.digest-interval": "1h", "raft.log-store": "wal",
		"cluster.snapshot-max-rate": "64MiB", "raft.unshipped-log-size": "1GiB", "storage.freeze-samples": "0", "raft.snapshot-entries": "0", "raft.trailing-log-bytes": "0B", "raft.log-segment-bytes": "0B",
		"raft.snapshot-log-bytes":         "0B",
		"storage.tsdb.min-block-duration": "2h", "storage.tsdb.max-block-duration": "31d", "storage.tsdb.max-block-chunk-segment-size": "512MiB",
		"storage.tsdb.wal-segment-size": "128MiB", "storage.tsdb.wal-compression": "true", "storage.tsdb.wal-compression-type": "snappy",
		"storage.tsdb.no-lockfile": "false", "storage.tsdb.allow-overlapping-compaction": "true",
		"storage.tsdb.head-chunks-write-queue-size": "0", "storage.tsdb.samples-per-chunk": "120",
		"storage.tsdb.delayed-compaction.max-percent": "10", "storage.tsdb.delay-compact-file.path": "",
		"storage.tsdb.block-reload-interval": "1m",
	}, o.shown)
}

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{
		{"--unknown"},
		{"positional"},
		{"--query.consistency=strong"},
		{"--query.max-staleness=0s"},
		{"--query.max-concurrency=0"},
		{"--web.max-connections=0"},
		{"--storage.remote.read-concurrent-limit=-1"},
		{"--cluster.bootstrap-expect=0"},
		{"--raft.log-store=mem"},
		{"--cluster.snapshot-max-rate=-1MB"},
		{"--cluster.snapshot-max-rate=fast"},
		{"--storage.tsdb.path="},
		{"--storage.tsdb.retention.size=5"},
		{"--storage.remote.read-sample-limit=1.5"},
		{"--web.remote-write-receiver.accepted-protobuf-messages=x"},
		{"--web.remote-write-receiver.accepted-protobuf-messages=prometheus.WriteRequest", "--web.remote-write-receiver.accepted-protobuf-messages=prometheus.WriteRequest"},
		{"--log.level=loud"},
	} {
		_, err := parse(t, args...)
		require.Error(t, err, "%v", args)
		var stderr bytes.Buffer
		require.Equal(t, exitUsage, run(context.Background(), args, &stderr, &stderr))
		require.Contains(t, stderr.String(), "Error parsing command line arguments: ")
	}
}

func TestVersionAndHelp(t *testing.T) {
	for flag, want := range map[string]string{
		"--version": "deucalion, version ",
		"--help":    "--cluster.bootstrap-expect",
		"-h":        "--storage.tsdb.path",
	} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, exitOK, run(context.Background(), []string{flag}, &stdout, &stderr))
		require.Contains(t, stdout.String()+stderr.String(), want)
	}
}

func TestRetention(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		time time.Duration
		size int64
		text string
	}{
		"neither":  {nil, 15 * 24 * time.Hour, 0, "15d"},
		"time":     {[]string{"--storage.tsdb.retention.time=30d"}, 30 * 24 * time.Hour, 0, "30d"},
		"size":     {[]string{"--storage.tsdb.retention.size=512MB"}, 0, 512 << 20, "512MiB"},
		"both":     {[]string{"--storage.tsdb.retention.time=1d", "--storage.tsdb.retention.size=1GB"}, 24 * time.Hour, 1 << 30, "1d or 1GiB"},
		"zero":     {[]string{"--storage.tsdb.retention.time=0s"}, 15 * 24 * time.Hour, 0, "15d"},
		"for ever": {[]string{"--storage.tsdb.retention.time=200y"}, 200 * 365 * 24 * time.Hour, 0, "200y"},
	} {
		o, err := parse(t, tc.args...)
		require.NoError(t, err, name)
		require.Equal(t, retention{tc.time, tc.size}, o.retention(), name)
		require.Equal(t, tc.text, o.retention().String(), name)
	}
	require.Equal(t, maxRetention, (&options{retentionTime: math.MinInt64}).retention().time)
}

func TestExternalURL(t *testing.T) {
	u, err := computeExternalURL("", "0.0.0.0:9090")
	require.NoError(t, err)
	require.Equal(t, "9090", u.Port())
	u, err = computeExternalURL("https://example.com/prom/", "0.0.0.0:9090")
	require.NoError(t, err)
	require.Equal(t, "/prom", u.Path)
	for _, bad := range []string{`"https://x"`, "https://exa mple.com", "'x"} {
		_, err = computeExternalURL(bad, "0.0.0.0:9090")
		require.Error(t, err, bad)
	}
}

func TestHTTPAddress(t *testing.T) {
	for _, tc := range []struct{ listen, cluster, want string }{
		{"127.0.0.1:1", "10.0.0.1:2", "127.0.0.1:1"},
		{"0.0.0.0:1", "10.0.0.1:2", "10.0.0.1:1"},
		{"[::]:1", "node-1:2", "node-1:1"},
	} {
		addr, err := net.ResolveTCPAddr("tcp", tc.listen)
		require.NoError(t, err)
		got, err := httpAddress(addr, tc.cluster)
		require.NoError(t, err)
		require.Equal(t, tc.want, got)
	}
	addr, err := net.ResolveTCPAddr("tcp", "0.0.0.0:1")
	require.NoError(t, err)
	got, err := httpAddress(addr, "")
	require.NoError(t, err)
	require.NotContains(t, got, "0.0.0.0")
}
