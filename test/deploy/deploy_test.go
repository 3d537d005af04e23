// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

const (
	scrapes  = 10
	interval = 15 * time.Second // as the samples tell; the test does not wait that long
)

// dependent alerts may fire on a healthy cluster: they judge the machine.
var dependent = []string{"DeucalionLogWriteSlow", "DeucalionDiskFullSoon"}

// TestAgainstNodes scrapes three nodes under load as Prometheus does, and evaluates all expressions on that.
func TestAgainstNodes(t *testing.T) {
	c := harness.New(t, withRemoteStore(t))
	harness.Leader(t, c)
	db := teststorage.New(t)
	have := known{}
	now := time.Now()
	for i := range scrapes {
		load(t, c, i)
		for _, n := range c.Nodes {
			scrape(t, n, db, have, now.Add(time.Duration(i+1-scrapes)*interval))
		}
	}
	eval := evaluator(t, db, now)
	d := readDashboard(t)

	t.Run("dashboard", func(t *testing.T) {
		for _, x := range slices.Concat(d.panelExpressions(), d.variableExpressions(t)) {
			if err := have.check(x.text); err != nil {
				t.Errorf("%s: %v: %s", x.where, err, x.text)
			} else if len(eval(x.text)) == 0 {
				t.Errorf("%s shows nothing: %s", x.where, x.text)
			}
		}
	})
	t.Run("alerts", func(t *testing.T) {
		for _, r := range readAlerts(t) {
			if err := have.check(r.Expr); err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			} else if v := eval(r.Expr); len(v) > 0 && !slices.Contains(dependent, r.Alert) {
				t.Errorf("%s fires on a healthy cluster: %s", r.Alert, v)
			}
		}
	})
}

// withRemoteStore writes a configuration with a store that takes everything, and gives the flag for it: some metrics
// are of such stores.
func withRemoteStore(t *testing.T) string {
	t.Helper()
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(store.Close)
	path := filepath.Join(t.TempDir(), "prometheus.yml")
	require.NoError(t, os.WriteFile(path, []byte("remote_write: [{url: '"+store.URL+"', name: store}]\n"), 0o644))
	return "--config.file=" + path
}

// load does a little of everything that a node counts.
func load(t *testing.T, c *local.Cluster, round int) {
	t.Helper()
	now := time.Now().UnixMilli()
	for i, n := range c.Nodes {
		cl := n.Client().At(client.Linearizable)
		var series []prompb.TimeSeries
		for s := range 100 {
			series = append(series, prompb.TimeSeries{
				Labels:  client.Labels("__name__", "load", "node", n.Name, "s", fmt.Sprint(s)),
				Samples: []prompb.Sample{{Timestamp: now, Value: float64(s)}},
			})
		}
		require.NoError(t, cl.Write(t.Context(), series))
		require.NoError(t, cl.Write(t.Context(), series), "a retry")
		if i == 0 { // one sample of two hundred, so that no alert takes notice
			series[0].Samples[0].Value++
			require.ErrorIs(t, cl.Write(t.Context(), series[:1]), client.ErrStatus)
		}
		_, err := cl.Query(t.Context(), "sum(load)", now)
		require.NoError(t, err)
		_, err = cl.QueryRange(t.Context(), "sum(load)", now-60_000, now, "15s")
		require.NoError(t, err)
		resp, err := cl.Do(t.Context(), http.MethodGet, "/api/v1/query?query=(", nil, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusBadRequest, resp.Status)
		cl.Close()
	}
	if round%3 != 0 {
		return
	}
	cl := c.Nodes[round%len(c.Nodes)].Client()
	defer cl.Close()
	require.NoError(t, cl.Delete(t.Context(), url.Values{"match[]": {`load{s="7"}`}}))
	require.NoError(t, cl.Clean(t.Context()))
	_, err := cl.Snapshot(t.Context())
	require.NoError(t, err)
}

// scrape stores what a node tells, as if at a given time.
func scrape(t *testing.T, n *local.Server, db *teststorage.TestStorage, have known, at time.Time) {
	t.Helper()
	cl := n.Client()
	defer cl.Close()
	resp, err := cl.Get(t.Context(), "/metrics", nil)
	require.NoError(t, err)
	p, err := textparse.New(resp.Body, resp.Header.Get("Content-Type"), nil, textparse.ParserOptions{})
	require.NoError(t, err)
	app := db.Appender(t.Context())
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if entry != textparse.EntrySeries {
			continue
		}
		var ls labels.Labels
		p.Labels(&ls)
		b := labels.NewBuilder(ls)
		b.Set("job", "deucalion").Set("instance", n.Addr)
		_, _, v := p.Series()
		have.add(b.Labels())
		_, err = app.Append(0, b.Labels(), at.UnixMilli(), v)
		require.NoError(t, err)
	}
	_, err = app.Append(0, labels.FromStrings(model.MetricNameLabel, "up", "job", "deucalion", "instance", n.Addr), at.UnixMilli(), 1)
	require.NoError(t, err)
	require.NoError(t, app.Commit())
}

func evaluator(t *testing.T, db *teststorage.TestStorage, at time.Time) func(string) promql.Vector {
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, 1_000_000)
	return func(text string) promql.Vector {
		t.Helper()
		q, err := engine.NewInstantQuery(t.Context(), db, nil, text, at)
		require.NoError(t, err, text)
		res := q.Exec(t.Context())
		require.NoError(t, res.Err, text)
		v, err := res.Vector()
		require.NoError(t, err, text)
		return slices.Clone(v)
	}
}

// TestAlertsFire runs the unit tests of the alerts, with the promtool of the machine.
func TestAlertsFire(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("no promtool here; test/scripts/debian-prometheus.sh installs one")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, "test", "rules", "alerts_test.yml")
	cmd.Dir = "../../deploy/prometheus"
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
