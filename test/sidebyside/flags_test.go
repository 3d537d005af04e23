// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package sidebyside_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
)

// otherDefaults are flags whose values differ between the two servers of these tests, or on purpose.
var otherDefaults = map[string]bool{
	"config.file": true, "storage.tsdb.path": true, "web.listen-address": true, "storage.tsdb.retention.time": true, // of the tests
	"web.route-prefix": true, // stock shows what it makes of the external URL
	"web.page-title":   true, "web.enable-remote-write-receiver": true, "enable-feature": true,
	"storage.tsdb.max-block-duration": true, "storage.tsdb.max-block-chunk-segment-size": true, "storage.tsdb.wal-segment-size": true, // 0 in Prometheus: the default, which is shown here
}

// compareFlags: each flag of a stock server is there with the same default, or docs/differences.md names it.
func (s *pair) compareFlags() {
	s.t.Helper()
	flags := func(c *client.Client) map[string]string {
		var out map[string]string
		ctx, cancel := context.WithTimeout(s.t.Context(), longest)
		defer cancel()
		require.NoError(s.t, c.Data(ctx, "/api/v1/status/flags", nil, &out))
		return out
	}
	docs, err := os.ReadFile(filepath.Join("..", "..", "docs", "differences.md"))
	require.NoError(s.t, err)
	want, got := flags(s.stock), flags(s.nodes[0])
	require.Greater(s.t, len(want), 50)
	var wrong []string
	for name, value := range want {
		own, ok := got[name]
		switch {
		case ok && (own == value || otherDefaults[name]):
		case ok:
			wrong = append(wrong, fmt.Sprintf("--%s is %q, stock has %q", name, own, value))
		case strings.HasPrefix(name, "storage.agent.") && strings.Contains(string(docs), "`--storage.agent.*`"):
		case !strings.Contains(string(docs), "`--"+name+"`"):
			wrong = append(wrong, "--"+name+" is neither known nor in docs/differences.md")
		}
	}
	require.Empty(s.t, wrong)
}
