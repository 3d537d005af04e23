// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/netns"
)

// oldServer starts the Prometheus that the guide's reader has. Its data directory is that of the guide.
const oldServer = `
mkdir /etc/old
echo 'scrape_configs: [{job_name: old, scrape_interval: 1s, static_configs: [{targets: [old:9090]}]}]' >/etc/old/prometheus.yml
setsid prometheus --config.file=/etc/old/prometheus.yml --storage.tsdb.path=/var/lib/prometheus --web.enable-admin-api </dev/null >/var/lib/old.log 2>&1 &
`

// TestImportGuide does what the guide says about the history of an old server, word by word. A cluster of one will do:
// what an import does on three nodes test/admin shows.
func TestImportGuide(t *testing.T) {
	if err := netns.Check(); err != nil {
		t.Skip(err)
	}
	if _, err := exec.LookPath("prometheus"); err != nil {
		t.Skip("no prometheus here; test/scripts/debian-prometheus.sh installs one")
	}
	net, err := netns.New(92, 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, net.Close()) })
	node, old := startMachine(t, net.Hosts[0]), startMachine(t, net.Hosts[1])
	for _, m := range []*machine{node, old} {
		m.must(t, fmt.Sprintf("cat >>/etc/hosts <<END\n%s node1\n%s old\nEND\n", node.Addr, old.Addr))
		m.must(t, "make build\ninstall -m 755 bin/deucalion /usr/local/bin/")
	}
	old.must(t, oldServer)
	old.says(t, "curl -s 'localhost:9090/api/v1/query?query=up'", `"1"`)
	var before struct{ Data struct{ Result []any } }
	require.NoError(t, json.Unmarshal([]byte(old.must(t, "curl -s 'localhost:9090/api/v1/query?query=time()'")), &before))
	at := fmt.Sprintf("%.3f", before.Data.Result[0])

	// The node has the samples of that time from the import alone, for it starts later.
	node.must(t, "echo 'scrape_configs: [{job_name: old, scrape_interval: 1s, static_configs: [{targets: [old:9090]}]}]' >/etc/prometheus.yml\n"+
		"setsid deucalion --config.file=/etc/prometheus.yml --storage.tsdb.path=/var/lib/deucalion --web.enable-admin-api </dev/null >/var/lib/node.log 2>&1 &")
	up := func(at string) string { return "curl -s 'node1:9090/api/v1/query?query=up&time=" + at + "'" }
	old.says(t, up(""), `"1"`)
	require.NotContains(t, old.must(t, up(at)), `"1"`)

	blocks, text := guide(t, "## From a Prometheus to Deucalion")
	require.Contains(t, text, "with `--web.enable-admin-api`")
	require.Len(t, blocks, 1)
	snapshot, transfer, found := strings.Cut(blocks[0], "\n")
	require.True(t, found)
	var made struct{ Data struct{ Name string } }
	require.NoError(t, json.Unmarshal([]byte(old.must(t, "{ "+snapshot+"\n} 2>/dev/null")), &made))
	require.Contains(t, transfer, "/NAME")
	transfer = strings.ReplaceAll(transfer, "/NAME", "/"+made.Data.Name)
	for range 2 { // it may be repeated
		old.must(t, transfer)
		require.Contains(t, old.must(t, up(at)), `"1"`)
	}
}
