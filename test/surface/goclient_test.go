// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package surface_test

import (
	"net/http"
	"testing"
	"time"

	promapi "github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/local"
)

// linearizable makes every read of a client see what was written before.
type linearizable struct{ http.RoundTripper }

func (l linearizable) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Deucalion-Consistency", client.Linearizable)
	return l.RoundTripper.RoundTrip(r)
}

func goClient(t *testing.T, n *local.Server) v1.API {
	t.Helper()
	c, err := promapi.NewClient(promapi.Config{Address: "http://" + n.Addr, RoundTripper: linearizable{promapi.DefaultRoundTripper}})
	require.NoError(t, err)
	return v1.NewAPI(c)
}

// Every method of Prometheus's Go client.
func TestGoClient(t *testing.T) {
	onEach(t, func(t *testing.T, n *local.Server, _ []*local.Server) {
		at := write(t, n, "m", 3)
		c := goClient(t, n)
		goClientReads(t, c, at)
		goClientStatus(t, c)
		goClientAdmin(t, c, at)
	})
}

func goClientReads(t *testing.T, c v1.API, at time.Time) {
	t.Helper()
	ctx := t.Context()
	from, to := at.Add(-time.Minute), at.Add(time.Minute)
	value, warnings, err := c.Query(ctx, "sum(m)", at, v1.WithTimeout(time.Minute), v1.WithLimit(5), v1.WithStats(v1.AllStatsValue))
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.EqualValues(t, 3, value.(model.Vector)[0].Value)
	value, _, err = c.QueryRange(ctx, "m", v1.Range{Start: at, End: to, Step: time.Second}, v1.WithLookbackDelta(10*time.Second))
	require.NoError(t, err)
	require.Len(t, value, 3)
	exemplars, err := c.QueryExemplars(ctx, "m", from, to)
	require.NoError(t, err)
	require.Len(t, exemplars, 3)
	names, _, err := c.LabelNames(ctx, []string{"m"}, from, to, v1.WithLimit(10))
	require.NoError(t, err)
	require.Equal(t, model.LabelNames{"__name__", "i"}, names)
	values, _, err := c.LabelValues(ctx, "i", []string{"m"}, from, to)
	require.NoError(t, err)
	require.Equal(t, model.LabelValues{"0", "1", "2"}, values)
	series, _, err := c.Series(ctx, []string{`m{i="1"}`}, from, to)
	require.NoError(t, err)
	require.Equal(t, []model.LabelSet{{"__name__": "m", "i": "1"}}, series)
	metadata, err := c.Metadata(ctx, "m", "1")
	require.NoError(t, err)
	require.Equal(t, map[string][]v1.Metadata{"m": {{Type: "gauge", Help: "Help."}}}, metadata)
	text, err := c.FormatQuery(ctx, "a+b")
	require.NoError(t, err)
	require.Equal(t, `"a + b"`, text) // the client leaves the JSON as it is
	_, _, err = c.Query(ctx, "sum(", at)
	var failure *v1.Error
	require.ErrorAs(t, err, &failure)
	require.Equal(t, v1.ErrBadData, failure.Type)
}

func goClientStatus(t *testing.T, c v1.API) {
	t.Helper()
	ctx := t.Context()
	alerts, err := c.Alerts(ctx)
	require.NoError(t, err)
	require.Empty(t, alerts.Alerts)
	managers, err := c.AlertManagers(ctx)
	require.NoError(t, err)
	require.Empty(t, managers.Active)
	rules, err := c.Rules(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, rules.Groups)
	_, err = c.Targets(ctx)
	require.NoError(t, err)
	_, err = c.TargetsMetadata(ctx, "", "", "")
	require.NoError(t, err)
	conf, err := c.Config(ctx)
	require.NoError(t, err)
	require.Contains(t, conf.YAML, "scrape_interval")
	flags, err := c.Flags(ctx)
	require.NoError(t, err)
	require.Equal(t, "true", flags["web.enable-admin-api"])
	build, err := c.Buildinfo(ctx)
	require.NoError(t, err)
	require.NotEmpty(t, build.Version)
	run, err := c.Runtimeinfo(ctx)
	require.NoError(t, err)
	require.True(t, run.ReloadConfigSuccess)
	tsdb, err := c.TSDB(ctx, v1.WithLimit(3))
	require.NoError(t, err)
	require.Equal(t, 3, tsdb.HeadStats.NumSeries)
	_, err = c.TSDBBlocks(ctx)
	require.NoError(t, err)
	replay, err := c.WalReplay(ctx)
	require.NoError(t, err)
	require.Equal(t, replay.Max, replay.Current)
}

func goClientAdmin(t *testing.T, c v1.API, at time.Time) {
	t.Helper()
	ctx := t.Context()
	snapshot, err := c.Snapshot(ctx, true)
	require.NoError(t, err)
	require.NotEmpty(t, snapshot.Name)
	require.NoError(t, c.DeleteSeries(ctx, []string{`m{i="1"}`, `m{i="2"}`}, at.Add(-time.Minute), at.Add(time.Minute)))
	require.NoError(t, c.CleanTombstones(ctx))
	value, _, err := c.Query(ctx, "count(m)", at)
	require.NoError(t, err)
	require.EqualValues(t, 1, value.(model.Vector)[0].Value)
}
