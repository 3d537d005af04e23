// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/monitor"
)

// fixedClock is a node whose clock is wrong by an hour.
type fixedClock struct{ now time.Time }

func (c fixedClock) Newest() (sure, never time.Time) {
	return c.now.Add(cluster.MaxAhead), c.now.Add(cluster.MaxAhead + time.Hour)
}

func (c fixedClock) OwnTimes() (oldest, newest time.Time) {
	return c.now.Add(-10 * time.Second), c.now.Add(10 * time.Second)
}

// A wrong clock does not get into the log by what the node scrapes or records.
func TestAppenderRefusesWrongTimes(t *testing.T) {
	registry := prometheus.NewRegistry()
	f, err := fsm.Open(fsm.Options{Dir: t.TempDir(), Registerer: prometheus.NewRegistry()}, "")
	require.NoError(t, err)
	defer f.Close()
	clock := fixedClock{time.UnixMilli(1_700_000_000_000)}
	own := monitor.NewAppendable(monitor.AppendableOptions{FSM: f, Clock: clock, Registerer: registry})
	at := func(d time.Duration) int64 { return clock.now.Add(d).UnixMilli() }
	ls := labels.FromStrings("__name__", "a")

	v1, v2, clients := own.Appender(t.Context()), own.AppenderV2(t.Context()), own.ForClients().AppenderV2(t.Context())
	_, err = v1.Append(0, ls, at(10*time.Second), 1)
	require.NoError(t, err)
	_, err = v1.Append(0, ls, at(11*time.Second), 1)
	require.Equal(t, storage.ErrOutOfBounds, err)
	_, err = v2.Append(0, ls, 0, at(time.Hour), 1, nil, nil, storage.AppendV2Options{})
	require.Equal(t, storage.ErrOutOfBounds, err)
	_, err = v2.Append(0, ls, 0, at(-10*time.Second), 1, nil, nil, storage.AppendV2Options{})
	require.NoError(t, err)
	_, err = v2.Append(0, ls, 0, at(-11*time.Second), 1, nil, nil, storage.AppendV2Options{})
	require.Equal(t, storage.ErrOutOfBounds, err)
	_, err = clients.Append(0, ls, 0, at(-11*time.Second), 1, nil, nil, storage.AppendV2Options{})
	require.NoError(t, err)
	_, err = clients.Append(0, ls, 0, at(10*time.Minute), 1, nil, nil, storage.AppendV2Options{})
	require.NoError(t, err)
	_, err = clients.Append(0, ls, 0, at(11*time.Minute), 1, nil, nil, storage.AppendV2Options{})
	require.ErrorIs(t, err, cluster.ErrClockOff)
	_, err = clients.Append(0, ls, 0, at(71*time.Minute), 1, nil, nil, storage.AppendV2Options{})
	require.Equal(t, storage.ErrOutOfBounds, err)
	for _, a := range []storage.AppenderTransaction{v1, v2, clients} {
		require.NoError(t, a.Rollback())
	}
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP deucalion_appender_refused_samples_total Samples of scrapes, rules and OTLP that were refused, by reason.
# TYPE deucalion_appender_refused_samples_total counter
deucalion_appender_refused_samples_total{reason="out_of_bounds"} 4
`), "deucalion_appender_refused_samples_total"))
}
