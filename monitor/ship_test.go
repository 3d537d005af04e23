// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
)

// A new version of the library may hide its queues better.
func TestQueueManagerIsReachable(t *testing.T) {
	s := newSolo(t, newSink(t).conf(t))
	q, err := openQueue(s.queues, s.want[0])
	require.NoError(t, err)
	require.NotNil(t, q.manager)
	require.True(t, q.close(t.Context()))
}

// Everything that was accepted arrives, in both versions of the protocol, and nothing that was refused.
func TestShipAllTypes(t *testing.T) {
	for _, proto := range []string{"prometheus.WriteRequest", "io.prometheus.write.v2.Request"} {
		t.Run(proto, func(t *testing.T) {
			to := newSink(t)
			s := newSolo(t, to.conf(t, "protobuf_message: "+proto, "send_exemplars: true", "send_native_histograms: true",
				"metadata_config: {send_interval: 100ms}", `write_relabel_configs: [{source_labels: [__name__], regex: drop.*, action: drop}]`))
			_, err := s.log.Propose(t.Context(), fsm.EncodeSettings(fsm.Settings{MaxExemplars: 10, MinVersion: 3}))
			require.NoError(t, err)
			s.ready(1)
			h, fh := tsdbutil.GenerateTestHistogram(3), tsdbutil.GenerateTestFloatHistogram(4)
			ls := labels.FromStrings("__name__", "h")
			_, err = shipBatch(t.Context(), s.log.fsm, s.log, func(b *fsm.Batch) {
				b.Series(nil, ls)
				b.Histogram(1000, h)
				b.FloatHistogram(2000, fh)
				b.Exemplar(exemplar.Exemplar{Labels: labels.FromStrings("trace_id", "a"), Value: 7, Ts: 1000, HasTs: true})
				b.Metadata("m", metadata.Metadata{Type: "gauge", Help: "what it means"})
			})
			require.NoError(t, err)
			want := []string{
				fmt.Sprintf("%s 1000 histogram %v", ls, h.Sum), fmt.Sprintf("%s 2000 histogram %v", ls, fh.Sum), fmt.Sprintf("%s 1000 exemplar 7", ls),
				s.add("m", 1000, 1), s.add("m", 2000, math.Float64frombits(value.StaleNaN)), s.add("other", 1500, 2),
			}
			dropped := s.add("dropped", 1000, 1)
			refused := s.add("m", 1000, 5)
			to.await(t, append(want, s.add("last", 1000, 1))...)
			require.Eventually(t, func() bool {
				to.mu.Lock()
				defer to.mu.Unlock()
				return to.metadata["m"] == "what it means"
			}, shipPatience, 10*time.Millisecond)
			require.NotContains(t, to.seen(), dropped)
			require.NotContains(t, to.seen(), refused)
			require.Zero(t, to.repeats())
			require.Positive(t, s.metric("prometheus_remote_storage_samples_total"))
			require.Positive(t, s.metric("prometheus_remote_storage_samples_dropped_total"))
			require.Equal(t, 2.0, s.metric("prometheus_remote_storage_highest_timestamp_in_seconds"))
		})
	}
}

// The position is noted once it moves, and not because it was noted.
func TestShipPositionRests(t *testing.T) {
	to := newSink(t)
	s := newSolo(t, to.conf(t))
	s.ready(1)
	to.await(t, s.add("m", 1000, 1))
	applied, _ := s.log.fsm.Applied()
	position := func() uint64 {
		i, _ := s.log.fsm.ShippedFrom()
		return i
	}
	require.Eventually(t, func() bool { return position() >= applied }, shipPatience, 10*time.Millisecond)
	noted, _ := s.log.fsm.Applied()
	s.resign()
	s.lead() // the first thing that it does is to note what has moved
	require.NoError(t, s.Stop(t.Context()))
	now, _ := s.log.fsm.Applied()
	require.Equal(t, noted, now, "an idle cluster proposes nothing")
}

// What comes while the remote store is away arrives when it is back, also in the next term; nothing is noted before.
func TestShipToStoreThatIsAway(t *testing.T) {
	to := newSink(t)
	to.set(http.StatusServiceUnavailable)
	s := newSolo(t, to.conf(t))
	s.ready(1)
	var want []string
	for i := range 100 {
		want = append(want, s.add(fmt.Sprint("m", i%7), int64(1000+i), float64(i)))
	}
	require.Eventually(t, func() bool { return to.attempts() > 3 }, shipPatience, 10*time.Millisecond)
	start, _ := s.log.fsm.ShippedFrom()
	require.Less(t, start, uint64(10))
	s.resign()
	s.lead()
	require.Empty(t, to.seen())
	to.set(0)
	to.await(t, want...)
	require.Zero(t, to.repeats())
}

// A queue that has thrown data away is fed again.
func TestShipRewinds(t *testing.T) {
	to := newSink(t)
	s := newSolo(t, to.conf(t))
	s.ready(1)
	to.set(http.StatusServiceUnavailable)
	want := s.add("m", 1000, 1)
	require.Eventually(t, func() bool { return to.attempts() > 0 }, shipPatience, 5*time.Millisecond)
	loseData(s)
	to.set(0)
	to.await(t, want, s.add("m", 2000, 2))
	require.Eventually(t, func() bool { return to.seen()[want] > 1 }, shipPatience, 5*time.Millisecond, "sent again")
	require.Positive(t, s.metric("deucalion_remote_storage_rewinds_total"))
}

// loseData makes the running queue look as if its shards had been stopped by force.
func loseData(s *solo) {
	s.metrics.mu.Lock()
	defer s.metrics.mu.Unlock()
	for q := range s.metrics.queues {
		q.client.mu.Lock()
		q.client.lost = true
		q.client.mu.Unlock()
	}
}

func TestShipSkipsWhatTheLogHasNot(t *testing.T) {
	to := newSink(t)
	to.set(http.StatusServiceUnavailable)
	s := newSolo(t, to.conf(t))
	s.ready(1)
	s.resign()
	gone := s.add("m", 1000, 1)
	there := s.add("m", 2000, 2)
	s.log.mu.Lock()
	s.log.first = uint64(len(s.log.entries))
	s.log.mu.Unlock()
	to.set(0)
	s.lead()
	to.await(t, there)
	require.NotContains(t, to.seen(), gone)
	require.Positive(t, s.metric("deucalion_remote_storage_skipped_entries_total"))
}

// A new remote store begins now; one whose section changes goes on where it was; one that is gone gets nothing.
func TestShipConfigChanges(t *testing.T) {
	a, b := newSink(t), newSink(t)
	s := newSolo(t, a.conf(t, "name: a"))
	s.ready(1)
	first := s.add("m", 1000, 1)
	a.await(t, first)

	both := func(extra string) string {
		return fmt.Sprintf("global: {external_labels: {cluster: x}}\nremote_write:\n- {name: a, url: '%s', queue_config: {batch_send_deadline: 60ms}%s}\n- {url: '%s', queue_config: {batch_send_deadline: 50ms}}\n", a.URL, extra, b.URL)
	}
	require.NoError(t, s.ApplyConfig(loadShip(t, both(""))))
	s.ready(2)
	s.add("m", 2000, 2)
	second := `{__name__="m", cluster="x"} 2000 2`
	a.await(t, second)
	b.await(t, second)
	require.NotContains(t, b.seen(), `{__name__="m", cluster="x"} 1000 1`)
	require.Zero(t, a.repeats())

	require.Error(t, s.ApplyConfig(loadShip(t, both("")+fmt.Sprintf("- {url: '%s', queue_config: {batch_send_deadline: 50ms}}\n", b.URL))), "twice the same")
	require.NoError(t, s.ApplyConfig(a.conf(t, "name: a")))
	a.await(t, s.add("m", 3000, 3), s.add("n", 3000, 4))
	require.NotContains(t, b.seen(), `{__name__="m", cluster="x"} 3000 3`)
	require.Zero(t, a.repeats())
}

// After Stop everything is noted, and the next start sends nothing again.
func TestShipStopNotes(t *testing.T) {
	to := newSink(t)
	s := newSolo(t, to.conf(t))
	s.ready(1)
	var last string
	for i := range 50 {
		last = s.add("m", int64(1000+i), float64(i))
	}
	applied, _ := s.log.fsm.Applied()
	to.await(t, last)
	require.NoError(t, s.Stop(t.Context()))
	position, ok := s.log.fsm.ShippedFrom()
	require.True(t, ok)
	require.GreaterOrEqual(t, position, applied)
	s.lead() // has no effect any more
	s.add("m", 9000, 1)
	require.NotContains(t, to.seen(), `{__name__="m"} 9000 1`)
}

// Stop ends with its context, also when a remote store has told its queue to come back in an hour, and notes what others
// have got.
func TestShipStopEndsInTime(t *testing.T) {
	dead := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer dead.Close()
	to := newSink(t)
	s := newSolo(t, to.conf(t, "name: live\n- {name: dead, url: '"+dead.URL+"'}"))
	s.ready(2)
	to.await(t, s.add("m", 1000, 1))
	written, _ := s.log.fsm.Applied()
	require.Eventually(t, func() bool { return s.metric("prometheus_remote_storage_samples_pending") > 0 }, shipPatience, 5*time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	began := time.Now()
	require.Error(t, s.Stop(ctx))
	require.Less(t, time.Since(began), 8*time.Second, "it has waited for the flush deadline")
	require.GreaterOrEqual(t, s.log.fsm.Shipped()["name:live"], written)
	require.Less(t, s.log.fsm.Shipped()["name:dead"], written)
}

// What the client of a queue says of its shards.
func TestShipClientNoticesLostShards(t *testing.T) {
	inner := &fakeClient{err: errors.New("no")}
	c := newShipClient(inner, prometheus.NewCounter(prometheus.CounterOpts{}))
	shards, kill := context.WithCancel(t.Context())
	_, err := c.Store(shards, nil, 0)
	require.ErrorIs(t, err, inner.err)
	require.False(t, c.lossy())
	next := context.WithValue(t.Context(), metadataKey{}, true)
	_, _ = c.Store(next, nil, 0)
	require.False(t, c.lossy())
	kill()
	require.True(t, c.lossy())
	_, _ = c.Store(t.Context(), nil, 0) // new shards
	require.True(t, c.lossy())
	c.abandon()
	_, err = c.Store(t.Context(), nil, 0)
	require.ErrorIs(t, err, errAbandoned)
	require.False(t, errors.As(err, &remote.RecoverableError{}))
}

// Metadata that the remote store refuses has no series to be sent in parts.
func TestShipRefusedMetadata(t *testing.T) {
	inner := &fakeClient{err: errors.New(badRequest + " Bad Request: no metadata here")}
	c := newShipClient(inner, prometheus.NewCounter(prometheus.CounterOpts{}))
	c.repeats.Store(true)
	req, err := (&prompb.WriteRequest{Metadata: []prompb.MetricMetadata{{MetricFamilyName: "m", Help: "what it means"}}}).Marshal()
	require.NoError(t, err)
	req = snappy.Encode(nil, req)
	_, err = c.Store(context.WithValue(t.Context(), metadataKey{}, true), req, 0)
	require.ErrorIs(t, err, inner.err, "it is not delivered")
	require.Equal(t, 1, inner.requests)
	require.NoError(t, c.parts(t.Context(), nil, 0), "nothing has no halves")
	require.Equal(t, 1, inner.requests)
}

type fakeClient struct {
	err      error
	requests int
}

func (c *fakeClient) Store(context.Context, []byte, int) (remote.WriteResponseStats, error) {
	c.requests++
	return remote.WriteResponseStats{}, c.err
}
func (c *fakeClient) Name() string     { return "fake" }
func (c *fakeClient) Endpoint() string { return "fake" }

// A remote store that refuses whole requests for one old sample gets what is new in them, after a failover.
func TestShipPastRefusedRepeats(t *testing.T) {
	to := newSink(t)
	to.ordered = map[string]int64{}
	s := newSolo(t, to.conf(t))
	s.ready(1)
	s.resign()
	var want []string
	for i := range 30 {
		want = append(want, s.add(fmt.Sprint("m", i%3), int64(1000+i), float64(i)))
	}
	to.mu.Lock()
	to.ordered[`{__name__="m0"}`], to.ordered[`{__name__="m1"}`] = 1018, 1001 // one shard was ahead of another
	to.mu.Unlock()
	s.lead()
	var missing []string
	for i, x := range want {
		if i%3 != 0 || i >= 18 {
			missing = append(missing, x)
		}
	}
	to.await(t, missing...)
	require.NotContains(t, to.seen(), want[0])
	to.await(t, s.add("m0", 5000, 1))
	require.Zero(t, s.metric("prometheus_remote_storage_samples_failed_total"))
	require.Equal(t, 6.0, s.metric("deucalion_remote_storage_repeats_refused_total"))
}
