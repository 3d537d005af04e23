// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/logging"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api"
)

// The query log names the path of the request with its prefix, as Prometheus's does.
func TestQueryLogPath(t *testing.T) {
	for _, prefix := range []string{"", "/pre/fix"} {
		t.Run("prefix="+prefix, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "a.html"), []byte(`{{query "a"}}`), 0o600))
			log := filepath.Join(dir, "query.log")
			i := newInstance(t, func(c *api.Config) {
				c.RoutePrefix, c.Consoles.Templates = prefix, dir
				to, err := logging.NewJSONFileLogger(log)
				require.NoError(t, err)
				c.Engine.(*promql.Engine).SetQueryLogger(to)
			})
			paths := []string{"/api/v1/query", "/api/v1/query_range", "/consoles/a.html"}
			for _, path := range paths {
				require.Equal(t, 200, i.get(prefix+path+"?query=a&start=1&end=2&step=1").code, path)
			}
			require.Equal(t, 200, i.form(http.MethodPost, prefix+paths[0], "query=a").code)
			text, err := os.ReadFile(log)
			require.NoError(t, err)
			var got []string
			for line := range strings.Lines(string(text)) {
				var entry struct {
					HTTPRequest struct{ Method, Path string }
				}
				require.NoError(t, json.Unmarshal([]byte(line), &entry), line)
				got = append(got, entry.HTTPRequest.Method+" "+entry.HTTPRequest.Path)
			}
			require.Equal(t, []string{"GET " + prefix + paths[0], "GET " + prefix + paths[1], "GET " + prefix + paths[2], "POST " + prefix + paths[0]}, got)
		})
	}
}
