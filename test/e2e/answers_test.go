// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/local"
)

// expressions are asked of every server; OFFSET stands for an offset at which no sample lies on the edge of a window,
// KILLED for the node that was killed: its counters start again near zero within a window, and there Prometheus 2
// and 3 extrapolate differently.
var expressions = []string{
	`up`,
	`count({__name__=~".+"})`,
	`{__name__=~"node_memory_.*", job="node"}`,
	`rate(node_cpu_seconds_total[30s])`,
	`sum by (mode) (rate(node_cpu_seconds_total{mode!="idle"}[20s]))`,
	`irate(node_context_switches_total[15s])`,
	`increase(node_interrupts_total[1m]) or increase(node_intr_total[1m])`,
	`histogram_quantile(0.9, sum by (le) (rate(deucalion_raft_log_write_duration_seconds_bucket{instance!="KILLED"}[30s])))`,
	`histogram_quantile(0.5, rate(deucalion_raft_log_write_duration_seconds_bucket{instance!="KILLED"}[20s]))`,
	`label_replace(up, "host", "$1", "instance", "(.*):.*")`,
	`label_join(up, "both", "-", "job", "instance")`,
	`max_over_time(rate(node_context_switches_total[10s] offset OFFSET)[40s:5s])`,
	`avg_over_time((sum(rate(node_cpu_seconds_total[15s] offset OFFSET)))[30s:10s])`,
	`changes(up{job="deucalion"}[2m])`,
	`min_over_time(up[2m])`,
	`resets(process_cpu_seconds_total{job="deucalion"}[2m])`,
	`node_memory_MemAvailable_bytes / on (instance) node_memory_MemTotal_bytes`,
	`sum by (instance) (rate(node_cpu_seconds_total[30s])) * on (instance) group_left (nodename) node_uname_info`,
	`topk(3, sum by (cpu, mode) (node_cpu_seconds_total))`,
	`quantile_over_time(0.7, node_load1[1m])`,
	`stddev_over_time(go_goroutines[1m])`,
	`deriv(node_memory_MemFree_bytes[30s])`,
	`predict_linear(node_memory_MemFree_bytes[30s], 60)`,
	`absent(nothing_of_this_name)`,
	`count by (job) (up == 1) unless on (job) vector(0)`,
	`last_over_time(go_goroutines{job="deucalion"}[1m])`,
	`present_over_time(up[1m])`,
	`timestamp(up)`,
	`scalar(count(up)) + time() * 0`,
}

// compareAnswers asks every server the same at fixed times. The nodes must agree to the last bit; stock is an
// older Prometheus that sums in another order of operations, so it may differ in the last digits.
func compareAnswers(t *testing.T, c *local.Cluster, stock *local.Server, data client.Data, killed string) {
	t.Helper()
	q := newQuietTimes(data)
	times := []int64{q.at(0.4), q.at(0.65), q.at(0.9)}
	asked := 0
	for _, raw := range expressions {
		expr := strings.NewReplacer("OFFSET", q.offset(), "KILLED", killed).Replace(raw)
		for _, at := range times {
			compare(t, servers(c, stock), fmt.Sprintf("%s at %d", expr, at), func(cl *client.Client) (*client.Result, error) {
				return cl.Query(t.Context(), expr, at)
			})
		}
		compare(t, servers(c, stock), expr+" over a range", func(cl *client.Client) (*client.Result, error) {
			return cl.QueryRange(t.Context(), expr, q.at(0.4), q.at(0.9), "3s")
		})
		asked += len(times) + 1
	}
	t.Logf("%d answers equal on four servers", asked)
}

func compare(t *testing.T, servers []*local.Server, what string, ask func(*client.Client) (*client.Result, error)) {
	t.Helper()
	var want, first *client.Result
	for i, s := range servers {
		cl := s.Client().At(client.Linearizable)
		got, err := ask(cl)
		cl.Close()
		require.NoError(t, err, "%s: %s", s.Name, what)
		switch i {
		case 0:
			want = got
			require.NotEmpty(t, want.Series, "an empty answer proves nothing: %s", what)
		case 1:
			first = got
			requireAlike(t, want, got, s.Name+": "+what)
		default:
			require.Equal(t, first, got, "%s: %s", s.Name, what)
		}
	}
}

// requireAlike compares answers up to rounding.
func requireAlike(t *testing.T, want, got *client.Result, what string) {
	t.Helper()
	require.Equal(t, want.Type, got.Type, what)
	require.Len(t, got.Series, len(want.Series), "%s\nstock: %snode: %s", what, want, got)
	for i, w := range want.Series {
		g := got.Series[i]
		require.Equal(t, w.Labels, g.Labels, what)
		require.Len(t, g.Points, len(w.Points), "%s: %s", what, w.Labels)
		for j, p := range w.Points {
			require.Equal(t, p.T, g.Points[j].T, "%s: %s", what, w.Labels)
			require.True(t, close(t, p.Value, g.Points[j].Value), "%s: %s at %s: stock %s, node %s", what, w.Labels, p.T, p.Value, g.Points[j].Value)
		}
	}
}

// close tells whether two values are equal to nine digits.
func close(t *testing.T, a, b string) bool {
	t.Helper()
	if a == b {
		return true
	}
	x, err := strconv.ParseFloat(a, 64)
	require.NoError(t, err)
	y, err := strconv.ParseFloat(b, 64)
	require.NoError(t, err)
	return math.Abs(x-y) <= 1e-9*max(math.Abs(x), math.Abs(y))
}

// quietTimes finds times at which no window of whole seconds has a sample on its edge: there Prometheus 2 and 3
// differ, for windows of Prometheus 3 are open to the left.
type quietTimes struct {
	first, last int64 // ms, of all samples
	millis      int64 // of a second, far from those of any sample
}

func newQuietTimes(data client.Data) quietTimes {
	q := quietTimes{first: math.MaxInt64}
	var taken [1000]bool
	for _, samples := range data {
		for _, s := range samples {
			q.first, q.last = min(q.first, s.T), max(q.last, s.T)
			taken[s.T%1000] = true
		}
	}
	best := -1
	for ms := range int64(1000) {
		gap := 0
		for gap < 500 && !taken[(ms+int64(gap))%1000] && !taken[(ms-int64(gap)+1000)%1000] {
			gap++
		}
		if gap > best {
			best, q.millis = gap, ms
		}
	}
	return q
}

// at is a quiet time at a fraction of the time that the data span.
func (q quietTimes) at(fraction float64) int64 {
	t := q.first + int64(fraction*float64(q.last-q.first))
	return t - t%1000 + q.millis
}

// offset moves whole seconds to quiet times.
func (q quietTimes) offset() string { return fmt.Sprintf("%dms", 1000-q.millis) }
