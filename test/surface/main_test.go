// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package surface_test

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

func TestMain(m *testing.M) { harness.Main(m) }

// onEach runs f on a node alone and on a follower of three, all started with flags. others are the other nodes.
func onEach(t *testing.T, f func(t *testing.T, n *local.Server, others []*local.Server), flags ...string) {
	t.Helper()
	for name, nodes := range map[string]int{"solo": 1, "follower": 3} {
		t.Run(name, func(t *testing.T) {
			c := harness.Prepare(t, local.ClusterOptions{Nodes: nodes, Flags: flags})
			harness.Start(t, c)
			n := harness.Leader(t, c)
			if nodes > 1 {
				n = c.Followers(n)[0]
			}
			var others []*local.Server
			for _, s := range c.Nodes {
				if s != n {
					others = append(others, s)
				}
			}
			f(t, n, others)
		})
	}
}

// write stores a sample of the present in each of the series m{i="0"}, m{i="1"}, ... of a metric, with metadata.
func write(t *testing.T, n *local.Server, metric string, series int) (at time.Time) {
	t.Helper()
	at = time.Now().Truncate(time.Millisecond)
	c := n.Client()
	defer c.Close()
	var all []prompb.TimeSeries
	for i := range series {
		all = append(all, prompb.TimeSeries{
			Labels:    client.Labels("__name__", metric, "i", string(rune('0'+i))),
			Samples:   []prompb.Sample{{Value: float64(i), Timestamp: at.UnixMilli()}},
			Exemplars: []prompb.Exemplar{{Labels: client.Labels("trace_id", "t"), Value: 1, Timestamp: at.UnixMilli()}},
		})
	}
	body, err := client.EncodeRequest(&prompb.WriteRequest{
		Timeseries: all,
		Metadata:   []prompb.MetricMetadata{{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: metric, Help: "Help."}},
	})
	require.NoError(t, err)
	resp, err := c.WriteBody(t.Context(), body)
	require.NoError(t, err)
	require.NoError(t, resp.Err())
	return at
}
