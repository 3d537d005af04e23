// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !remove_all_sd

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What the Kubernetes client has to say is in the log, in its format.
func TestKubernetesClientLogs(t *testing.T) {
	broken := httptest.NewServer(http.NotFoundHandler())
	defer broken.Close()
	file := filepath.Join(t.TempDir(), "c.yml")
	text := fmt.Sprintf("scrape_configs: [{job_name: k, kubernetes_sd_configs: [{role: pod, api_server: '%s'}]}]", broken.URL)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	p := launch(t, t.TempDir(), "--config.file="+file)
	require.Eventually(t, func() bool { return strings.Contains(p.log.String(), "component=k8s_client_runtime") }, 60*time.Second, 50*time.Millisecond, "%s", p.log)
	for line := range strings.Lines(p.log.String()) {
		if strings.HasSuffix(line, "\n") { // else it is still being written
			require.True(t, strings.HasPrefix(line, "time="), line)
		}
	}
}
