// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/admin/fill"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
)

// TestDelete deletes on a follower. On every node the samples are gone at once, stay gone over restarts and
// cleanup, and what is written into the deleted range afterwards is there to stay.
func TestDelete(t *testing.T) {
	c := harness.New(t, withWindow(t))
	_, cl := follower(t, c)
	start := time.Now().Add(-30 * time.Minute).UnixMilli()
	mint, maxt := start+300_000, start+899_999
	model := client.Data{}
	for seed, job := range []string{"a", "b", "c", "d"} {
		rows := fill.Grid{Job: job, Series: 10, Start: start, Step: 15_000, Count: 100}.Make(uint64(seed))
		require.NoError(t, cl.Write(t.Context(), rows))
		fill.Merge(model, rows)
	}
	requireData(t, c, client.Linearizable, model, "written")

	deleteSeries(t, cl, http.MethodPost, url.Values{
		"match[]": {`{job="a"}`}, "start": {client.Seconds(mint)}, "end": {client.Seconds(maxt)},
	})
	fill.Erase(model, "a", mint, maxt)
	requireData(t, c, client.Local, model, "a range deleted")

	deleteSeries(t, cl, http.MethodPut, url.Values{"match[]": {`{job="b"}`, `{job="none"}`}})
	fill.Erase(model, "b", 0, start*2)
	requireData(t, c, client.Local, model, "whole series deleted")

	deleteSeries(t, cl, http.MethodDelete, url.Values{"match[]": {`grid{job="d"}`}, "end": {client.Seconds(mint)}})
	fill.Erase(model, "d", 0, mint)
	requireData(t, c, client.Local, model, "deleted by DELETE")

	restartAll(t, c)
	requireData(t, c, client.Linearizable, model, "restarted after deletes")

	again := fill.Grid{Job: "a", Series: 10, Start: mint, Step: 15_000, Count: 20}.Make(99)
	require.NoError(t, cl.Write(t.Context(), again))
	fill.Merge(model, again)
	requireData(t, c, client.Linearizable, model, "written into the deleted range")

	require.NoError(t, cl.Clean(t.Context()))
	requireData(t, c, client.Local, model, "cleaned")
	restartAll(t, c)
	requireData(t, c, client.Linearizable, model, "restarted after cleanup")
}

func deleteSeries(t *testing.T, cl *client.Client, method string, params url.Values) {
	t.Helper()
	resp, err := cl.Do(t.Context(), method, "/api/v1/admin/tsdb/delete_series?"+params.Encode(), nil, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusNoContent, resp.Status, "%s", resp.Body)
}
