// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package upgrade_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/local"
)

const (
	hour = int64(3_600_000)
	// base is the time of the first sample: 2026-01-01.
	base = int64(1_767_225_600_000)
)

// fixtureEnv names the directory into which TestMakeFixture writes: the data directory and the answers.
const fixtureEnv = "DEUCALION_FIXTURE"

// TestMakeFixture makes the data directory of a release. Only fixture.sh asks for it.
func TestMakeFixture(t *testing.T) {
	out := os.Getenv(fixtureEnv)
	if out == "" {
		t.Skip("only for test/scripts/fixture.sh")
	}
	most, early, config := remotes(t)
	s := node(t, config)
	start(t, s)
	awaitLevel(t, s)
	imports(t, s, "old", -30*60)
	write(t, s, 0, 180)
	remove(t, s, "counter", 30, 60)
	most.await(t, "counter", 36)
	early.await(t, "counter", 36)
	awaitNoted(t, s, most, early)
	require.NoError(t, s.Stop()) // with a snapshot
	early.refuse()
	start(t, s)
	write(t, s, 180, 240) // into the log alone
	remove(t, s, "gone", 0, 240)
	late(t, s)
	imports(t, s, "older", -60*60)
	most.await(t, "counter", 48+4)
	awaitNoted(t, s, most)
	most.refuse()
	tail(t, s)
	a := ask(t, s)
	a.Unshipped = unshipped
	require.NoError(t, s.Kill())
	require.Zero(t, most.samples(unshipped)+early.samples(unshipped))
	require.NotContains(t, a.Data, `{__name__="gone"}`)
	require.Greater(t, a.Data.Len(), 250)
	b, err := json.MarshalIndent(a, "", " ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(out, "answers.json"), b, 0o666))
	require.NoError(t, os.RemoveAll(filepath.Join(s.Dir, "live"))) // the next start does that first
	require.NoError(t, os.CopyFS(filepath.Join(out, "data"), os.DirFS(s.Dir)))
}

// awaitLevel waits until s may use all that it knows.
func awaitLevel(t *testing.T, s *local.Server) {
	t.Helper()
	c := s.Client()
	defer c.Close()
	await(t, "the level of the log format", func(ctx context.Context) error {
		var status struct {
			Level uint32 `json:"level"`
		}
		err := c.Data(ctx, "/api/v1/cluster", nil, &status)
		if err == nil && status.Level != fsm.Level {
			err = fmt.Errorf("%w: %d", errNotYet, status.Level)
		}
		return err
	})
}

func start(t *testing.T, s *local.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	require.NoError(t, s.Start())
	require.NoError(t, s.WaitReady(ctx))
}

// write sends a sample of every type in five minutes, in requests of ten minutes.
func write(t *testing.T, s *local.Server, from, to int64) {
	t.Helper()
	for ; from < to; from += 10 {
		send(t, s, &prompb.WriteRequest{
			Timeseries: minutes(from, from+10),
			Metadata: []prompb.MetricMetadata{
				{MetricFamilyName: "counter", Type: prompb.MetricMetadata_COUNTER, Help: "Counts, with ü.", Unit: "seconds"},
				{MetricFamilyName: "ints", Type: prompb.MetricMetadata_HISTOGRAM, Help: fmt.Sprint("hour ", from/60)},
			},
		})
	}
}

func send(t *testing.T, s *local.Server, r *prompb.WriteRequest) {
	t.Helper()
	raw, err := r.Marshal()
	require.NoError(t, err)
	c := s.Client()
	defer c.Close()
	resp, err := c.WriteBody(t.Context(), snappy.Encode(nil, raw))
	require.NoError(t, err)
	require.NoError(t, resp.Err())
}

func minutes(from, to int64) []prompb.TimeSeries {
	names := []string{"counter", "gone", "odd", "ints", "floats", "custom", "gauge"}
	out := make([]prompb.TimeSeries, len(names))
	for k, name := range names {
		ts := &out[k]
		ts.Labels = client.Labels("__name__", name)
		if name == "counter" {
			ts.Labels = client.Labels("__name__", name, "job", "ünicode", "le", "+Inf")
			ts.Exemplars = []prompb.Exemplar{{Labels: client.Labels("trace_id", fmt.Sprint(from)), Value: float64(from), Timestamp: base + from*60_000}}
		}
		for i := from; i < to; i += 5 {
			at := base + i*60_000
			switch name {
			case "ints":
				ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(at, tsdbutil.GenerateTestHistogram(i)))
			case "floats":
				ts.Histograms = append(ts.Histograms, prompb.FromFloatHistogram(at, tsdbutil.GenerateTestFloatHistogram(i)))
			case "custom":
				ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(at, tsdbutil.GenerateTestCustomBucketsHistogram(i)))
			case "gauge":
				ts.Histograms = append(ts.Histograms, prompb.FromFloatHistogram(at, tsdbutil.GenerateTestGaugeFloatHistogram(i)))
			case "odd":
				odd := []float64{math.Inf(1), math.Inf(-1), math.NaN(), math.Float64frombits(value.StaleNaN), math.Copysign(0, -1), math.SmallestNonzeroFloat64}
				ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at, Value: odd[i/5%int64(len(odd))]})
			default:
				ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at, Value: float64(i) * 1.1})
			}
		}
	}
	return out
}

// late writes out of order.
func late(t *testing.T, s *local.Server) {
	t.Helper()
	ts := prompb.TimeSeries{Labels: client.Labels("__name__", "counter", "job", "late")}
	for _, i := range []int64{239, 200, 170, 150} {
		ts.Samples = []prompb.Sample{{Timestamp: base + i*60_000 + 500, Value: float64(i)}}
		send(t, s, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{ts}})
	}
}

func remove(t *testing.T, s *local.Server, name string, from, to int64) {
	t.Helper()
	c := s.Client()
	defer c.Close()
	require.NoError(t, c.Delete(t.Context(), url.Values{
		"match[]": {name}, "start": {client.Seconds(base + from*60_000)}, "end": {client.Seconds(base + to*60_000)},
	}))
}
