// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compose_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	composecli "github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/prometheus/prometheus/config"
	"github.com/stretchr/testify/require"
)

const dir = "../../deploy/compose"

func load(t *testing.T) *types.Project {
	t.Helper()
	o, err := composecli.NewProjectOptions([]string{filepath.Join(dir, "compose.yaml")}, composecli.WithName("deucalion"))
	require.NoError(t, err)
	p, err := o.LoadProject(t.Context())
	require.NoError(t, err)
	return p
}

// Every node has an address of its own on the network between the nodes, says so to the others, and names them as peers.
func TestNodes(t *testing.T) {
	p := load(t)
	require.True(t, p.Networks["cluster"].Internal)
	nodes := []string{"node1", "node2", "node3"}
	for _, name := range nodes {
		s, err := p.GetService(name)
		require.NoError(t, err)
		ip := s.Networks["cluster"].Ipv4Address
		subnet := netip.MustParsePrefix(p.Networks["cluster"].Ipam.Config[0].Subnet)
		require.True(t, subnet.Contains(netip.MustParseAddr(ip)), name)
		require.Contains(t, s.Command, "--node.id="+name)
		require.Contains(t, s.Command, "--cluster.advertise-address="+ip+":9190")
		require.Contains(t, s.Command, "--cluster.gossip-listen-address="+ip+":9191")
		require.Contains(t, s.Command, "--cluster.bootstrap-expect=3")
		for _, other := range nodes {
			if other != name {
				o, err := p.GetService(other)
				require.NoError(t, err)
				require.Contains(t, s.Command, "--cluster.peer="+o.Networks["cluster"].Ipv4Address+":9191")
			}
		}
		require.Equal(t, "unless-stopped", s.Restart)
		require.GreaterOrEqual(t, time.Duration(*s.StopGracePeriod), 100*time.Second, "a graceful stop takes up to 90 s")
		require.Equal(t, types.HealthCheckTest{"CMD", "/bin/deucalion", "healthcheck"}, s.HealthCheck.Test)
		require.True(t, s.ReadOnly)
		require.True(t, slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool {
			return v.Type == types.VolumeTypeVolume && v.Source == name && v.Target == "/data"
		}), "%s has a volume of its own", name)
	}
}

// Ports are published on loopback unless somebody asks for more, none twice, and none of those between the nodes.
func TestPorts(t *testing.T) {
	seen := map[string]string{}
	for _, s := range load(t).Services {
		for _, port := range s.Ports {
			require.Equal(t, "127.0.0.1", port.HostIP, s.Name)
			require.Empty(t, seen[port.Published], "%s and %s", s.Name, port.Published)
			seen[port.Published] = s.Name
			require.NotContains(t, []uint32{9190, 9191}, port.Target, s.Name)
		}
	}
	require.Equal(t, "haproxy", seen["9090"])
}

// restarted are the files that are read at a start alone, which finds the one that is there by then.
var restarted = []string{"haproxy.cfg"}

// A file that is not there is mounted as an empty directory. One that is mounted by itself stays the old one when an
// editor puts another in its place, so what can be reloaded is mounted with its directory.
func TestMountsExist(t *testing.T) {
	for _, s := range load(t).Services {
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				info, err := os.Stat(v.Source)
				require.NoError(t, err, s.Name)
				require.True(t, info.IsDir() || slices.Contains(restarted, info.Name()), "%s: %s", s.Name, v.Source)
				require.True(t, v.ReadOnly, "%s: %s", s.Name, v.Target)
			}
		}
	}
}

// onHost is where a file of a container is, by its mounts.
func onHost(t *testing.T, s types.ServiceConfig, path string) string {
	t.Helper()
	for _, v := range s.Volumes {
		if rest, ok := strings.CutPrefix(path, v.Target+"/"); ok && v.Type == types.VolumeTypeBind {
			return filepath.Join(v.Source, rest)
		}
	}
	require.Fail(t, "not mounted", "%s in %s", path, s.Name)
	return ""
}

// The configuration finds its rule files where they are mounted, and every target is a service.
func TestPrometheusConfig(t *testing.T) {
	p := load(t)
	c, err := config.LoadFile(filepath.Join(dir, "prometheus", "prometheus.yml"), false, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	for _, name := range []string{"node1", "node2", "node3"} {
		for _, f := range append(c.RuleFiles, "/etc/prometheus/prometheus.yml") {
			_, err := os.Stat(onHost(t, p.Services[name], f))
			require.NoError(t, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "prometheus", "prometheus.yml"))
	require.NoError(t, err)
	targets := 0
	for _, field := range strings.FieldsFunc(string(text), func(r rune) bool { return strings.ContainsRune(" '[],{}\n", r) }) {
		if host, port, ok := strings.Cut(field, ":"); ok && port != "" && !strings.Contains(port, "/") {
			require.Contains(t, p.Services, host, fmt.Sprintf("target %s", field))
			targets++
		}
	}
	require.Equal(t, 8, targets)
}
