// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package upgrade_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
	"github.com/deucaliondb/deucalion/test/upgrade"
)

func TestMain(m *testing.M) { harness.Main(m) }

// deadline bounds every wait.
const deadline = 60 * time.Second

// node lays out a cluster of one, n1, whose data directory may be filled before it is started. sections are more of its
// configuration.
func node(t *testing.T, sections ...string) *local.Server {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "deucalion.yml")
	text := "storage: {tsdb: {out_of_order_time_window: 2h}}\n" + strings.Join(sections, "")
	require.NoError(t, os.WriteFile(config, []byte(text), 0o666))
	c, err := local.NewCluster(local.ClusterOptions{
		Bin: os.Getenv("DEUCALION_BIN"), Dir: dir, Nodes: 1, Flags: []string{"--config.file=" + config},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		if log, err := os.ReadFile(c.Nodes[0].Log); t.Failed() && err == nil {
			t.Logf("log:\n%s", log)
		}
	})
	return c.Nodes[0]
}

func ask(t *testing.T, s *local.Server) upgrade.Answers {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	c := s.Client()
	defer c.Close()
	var a upgrade.Answers
	var err error
	a.Data, err = c.ReadAll(ctx)
	require.NoError(t, err)
	require.NoError(t, c.Data(ctx, "/api/v1/metadata", nil, &a.Metadata))
	require.NoError(t, c.Data(ctx, "/api/v1/query_exemplars", map[string][]string{
		"query": {`{__name__=~".+"}`}, "start": {client.Seconds(base)}, "end": {client.Seconds(base + 24*hour)},
	}, &a.Exemplars))
	a.Digest = digest(t, c)
	return a
}

func digest(t *testing.T, c *client.Client) string {
	t.Helper()
	resp, err := c.Post(t.Context(), "/api/v1/admin/cluster/digest", nil)
	require.NoError(t, err)
	var report struct {
		Data struct {
			Nodes []struct {
				Result struct {
					Ranges []struct{ Hash string }
				}
			}
		}
	}
	require.NoError(t, json.Unmarshal(resp.Body, &report))
	require.Len(t, report.Data.Nodes, 1, "%s", resp.Body)
	require.Len(t, report.Data.Nodes[0].Result.Ranges, 1, "%s", resp.Body)
	return report.Data.Nodes[0].Result.Ranges[0].Hash
}
