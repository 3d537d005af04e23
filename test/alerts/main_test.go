// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package alerts_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

func TestMain(m *testing.M) { harness.Main(m) }

// notification is one alert in one request, of a node or of an Alertmanager.
type notification struct {
	Status       string            `json:"status"` // of an Alertmanager
	Labels       map[string]string `json:"labels"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL"`

	at time.Time
}

// inbox takes notifications over HTTP.
type inbox struct {
	address string

	mu  sync.Mutex // protects the following
	all []notification
}

// newInbox serves until the end of the test. decode reads the body of a request.
func newInbox(t *testing.T, decode func(*json.Decoder) ([]notification, error)) *inbox {
	t.Helper()
	i := &inbox{}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got, err := decode(json.NewDecoder(r.Body))
		if err != nil {
			return // a node was killed in the middle
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		for _, n := range got {
			n.at = time.Now()
			i.all = append(i.all, n)
		}
	}))
	t.Cleanup(s.Close)
	i.address = strings.TrimPrefix(s.URL, "http://")
	_, _, err := net.SplitHostPort(i.address)
	require.NoError(t, err)
	return i
}

func (i *inbox) list() []notification {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]notification(nil), i.all...)
}

// configure writes a configuration file whose alerts go to these Alertmanagers, and returns its flag.
func configure(t *testing.T, rules string, alertmanagers ...string) (flag string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "prometheus.yml")
	require.NoError(t, os.WriteFile(path, []byte("global: {evaluation_interval: 2s}\nrule_files: ['rule*.yml']\n"+
		"alerting: {alertmanagers: [{static_configs: [{targets: ['"+strings.Join(alertmanagers, "','")+"']}]}]}\n"), 0o644))
	flag = "--config.file=" + path
	setRules(t, flag, rules)
	return flag
}

// setRules writes the rule file of a configuration.
func setRules(t *testing.T, flag, rules string) {
	t.Helper()
	dir := filepath.Dir(strings.TrimPrefix(flag, "--config.file="))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rules.new"), []byte(rules), 0o644))
	require.NoError(t, os.Rename(filepath.Join(dir, "rules.new"), filepath.Join(dir, "rules.yml")))
}

// reload lets all nodes of c read their configuration, and waits until they have.
func reload(t *testing.T, c *local.Cluster) {
	t.Helper()
	before := float64(time.Now().UnixMilli()) / 1000
	for i, cl := range harness.Clients(t, c.Nodes) {
		require.NoError(t, c.Nodes[i].Reload())
		harness.Await(t, time.Minute, "a reload of "+c.Nodes[i].Name, func(ctx context.Context) error {
			m, err := cl.Metrics(ctx)
			if err == nil && m.Sum("prometheus_config_last_reload_success_timestamp_seconds") < before {
				err = errors.New("not yet")
			}
			return err
		})
	}
}
