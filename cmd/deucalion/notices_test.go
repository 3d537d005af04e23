// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/util/notifications"
	"github.com/stretchr/testify/require"
)

// notices is what a node shows at /api/v1/notifications.
func notices(t *testing.T, base string) (texts []string) {
	t.Helper()
	code, text, err := get(base + "/api/v1/notifications")
	require.NoError(t, err)
	require.Equal(t, 200, code, text)
	var answer struct{ Data []notifications.Notification }
	require.NoError(t, json.Unmarshal([]byte(text), &answer))
	for _, n := range answer.Data {
		require.True(t, n.Active)
		texts = append(texts, n.Text)
	}
	return texts
}

// Who asks, and who listens, is told of a reload that has failed until one succeeds, and of the end.
func TestNotifications(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yml")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	write("global: {scrape_interval: 11s}")
	p := launch(t, t.TempDir(), "--config.file="+file, "--web.enable-lifecycle")
	base := p.ready(t)
	require.Eventually(t, func() bool { return len(notices(t, base)) == 0 }, 30*time.Second, 20*time.Millisecond, "the node has started")

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/notifications/live", nil)
	require.NoError(t, err)
	live, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer live.Body.Close()
	events := bufio.NewScanner(live.Body)
	next := func() (n notifications.Notification) {
		for events.Scan() {
			if data, ok := strings.CutPrefix(events.Text(), "data: "); ok {
				require.NoError(t, json.Unmarshal([]byte(data), &n))
				return n
			}
		}
		t.Fatalf("the stream has ended: %v", events.Err())
		return n
	}
	reload := func(want int) {
		res, err := http.Post(base+"/-/reload", "", nil)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, want, res.StatusCode)
	}
	write("global: {scrape_interval: nonsense}")
	reload(500)
	require.Equal(t, []string{notifications.ConfigurationUnsuccessful}, notices(t, base))
	n := next()
	require.Equal(t, notifications.ConfigurationUnsuccessful, n.Text)
	require.True(t, n.Active)

	write("global: {scrape_interval: 12s}")
	reload(200)
	require.Empty(t, notices(t, base))
	n = next()
	require.Equal(t, notifications.ConfigurationUnsuccessful, n.Text)
	require.False(t, n.Active)

	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	n = next()
	require.Equal(t, shuttingDown, n.Text)
	require.True(t, n.Active)
}

// A node that waits for the others says that it is starting.
func TestNotificationOfTheStart(t *testing.T) {
	p := launch(t, t.TempDir(), "--cluster.bootstrap-expect=3", "--cluster.peer=127.0.0.1:1")
	require.Eventually(t, func() bool {
		m := listening.FindStringSubmatch(p.log.String())
		if m == nil {
			return false
		}
		code, _, err := get("http://" + m[1] + "/-/healthy")
		return err == nil && code == 200
	}, 60*time.Second, 20*time.Millisecond, "%s", p.log)
	require.Equal(t, []string{startingUp}, notices(t, "http://"+listening.FindStringSubmatch(p.log.String())[1]))
}
