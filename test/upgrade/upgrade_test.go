// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package upgrade_test

import (
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/upgrade"
)

func releases(t *testing.T) []string {
	t.Helper()
	out, err := upgrade.Releases("testdata")
	require.NoError(t, err)
	require.NotEmpty(t, out)
	return out
}

// TestUpgrade starts this version on what each release has left behind after a kill -9.
func TestUpgrade(t *testing.T) {
	for _, release := range releases(t) {
		t.Run(filepath.Base(release), func(t *testing.T) {
			want := recorded(t, release)
			most, early, config := remotes(t)
			if want.Unshipped == "" {
				config = ""
			}
			s := node(t, config)
			unpack(t, release, s.Dir)
			start(t, s)
			same(t, want, ask(t, s))
			if want.Unshipped != "" { // it goes on where it was
				most.await(t, want.Unshipped, 1)
				early.await(t, want.Unshipped, 1)
				require.Zero(t, most.samples("counter"), "it has had all")
				early.await(t, "counter", 12+4)
				require.Less(t, early.samples("counter"), 36, "it has had those before the snapshot")
			}

			// It takes writes, and all is there after a stop with a snapshot in this version's format.
			more := prompb.TimeSeries{Labels: client.Labels("__name__", "more"), Samples: []prompb.Sample{{Timestamp: base + 5*hour, Value: 7}}}
			send(t, s, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{more}})
			require.NoError(t, s.Stop())
			start(t, s)
			got := ask(t, s)
			require.Equal(t, 1, len(got.Data[`{__name__="more"}`]))
			delete(got.Data, `{__name__="more"}`)
			got.Digest = want.Digest
			same(t, want, got)
		})
	}
}

func same(t *testing.T, want, got upgrade.Answers) {
	t.Helper()
	require.Empty(t, client.Diff(want.Data, got.Data, 10))
	require.JSONEq(t, string(want.Metadata), string(got.Metadata))
	require.JSONEq(t, string(want.Exemplars), string(got.Exemplars))
	require.Equal(t, want.Digest, got.Digest, "two versions that compute it differently would take each other for damaged")
}

func recorded(t *testing.T, release string) upgrade.Answers {
	t.Helper()
	a, err := upgrade.Recorded(release)
	require.NoError(t, err)
	require.NotEmpty(t, a.Data)
	return a
}

func unpack(t *testing.T, release, dir string) {
	t.Helper()
	require.NoError(t, upgrade.Unpack(release, dir))
}
