// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package alerts_test

import (
	"encoding/json"
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

// configure writes a configuration with rules whose alerts go to an address, and gives the flag for it.
func configure(t *testing.T, rules, alertmanager string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	write("rules.yml", rules)
	return "--config.file=" + write("prometheus.yml", "global: {evaluation_interval: 2s}\nrule_files: ['rule*.yml']\n"+
		"alerting: {alertmanagers: [{static_configs: [{targets: ['"+alertmanager+"']}]}]}\n")
}
