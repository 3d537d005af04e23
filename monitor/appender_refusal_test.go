// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

// Prometheus's callers tell by the error whether one sample is left out or the whole scrape fails.
func TestAppenderRefusals(t *testing.T) {
	f, err := fsm.Open(fsm.Options{Dir: t.TempDir(), Storage: storage.Options{Manual: true}}, "")
	require.NoError(t, err)
	defer f.Close()
	a := NewAppendable(AppendableOptions{FSM: f, Proposer: &soloLog{fsm: f}, Registerer: prometheus.NewRegistry()})
	now := int64(1_700_000_000_000)
	appendTo := func(name string, ts int64, v float64) error {
		app := a.Appender(t.Context())
		app.SetOptions(&promstorage.AppendOptions{DiscardOutOfOrder: true}) // as rules do
		_, refused := app.Append(0, labels.FromStrings("__name__", name), ts, v)
		require.NoError(t, app.Commit())
		return refused
	}
	require.NoError(t, appendTo("m", now, 1))
	require.NoError(t, appendTo("m", now, 1), "another rule gives the same")
	require.ErrorIs(t, appendTo("m", now, 2), promstorage.ErrDuplicateSampleForTimestamp)
	require.ErrorIs(t, appendTo("m", now-1, 1), promstorage.ErrOutOfOrderSample)

	tooOld := appendTo("ancient", now-2*time.Hour.Milliseconds(), 1)
	require.ErrorIs(t, tooOld, promstorage.ErrOutOfBounds, "a scrape goes on only after this one")
	require.ErrorIs(t, tooOld, promstorage.ErrTooOldSample)
}
