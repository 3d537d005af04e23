// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package alerts_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
)

// TestStopTellsWhatIsQueued stops the leader while the ends of two alerts are queued, because the Alertmanager is slow.
// The next leader does not know those alerts any more, so this one must tell.
func TestStopTellsWhatIsQueued(t *testing.T) {
	var slow atomic.Bool
	release := make(chan struct{})
	answer := sync.OnceFunc(func() { close(release) })
	defer answer()
	in := newInbox(t, func(d *json.Decoder) (out []notification, err error) {
		err = d.Decode(&out)
		if slow.Load() {
			<-release
		}
		return out, err
	})
	c := harness.New(t, configure(t, "groups:\n- name: g\n  interval: 1s\n  rules: [{alert: First, expr: gate == 1}, {alert: Second, expr: gate == 1}]\n", in.address),
		"--alertmanager.notification-batch-size=1", "--rules.alert.resend-delay=10m")
	cl := c.Nodes[0].Client()
	defer cl.Close()
	gate := func(v float64) {
		t.Helper()
		harness.Await(t, time.Minute, "a write", func(ctx context.Context) error {
			return cl.Write(ctx, []prompb.TimeSeries{{Labels: client.Labels("__name__", "gate"), Samples: []prompb.Sample{{Timestamp: time.Now().UnixMilli(), Value: v}}}})
		})
	}
	told := func(status func(notification) bool) func(context.Context) error {
		return func(context.Context) error {
			got := map[string]bool{}
			for _, n := range in.list() {
				got[n.Labels["alertname"]] = got[n.Labels["alertname"]] || status(n)
			}
			if !got["First"] || !got["Second"] {
				return fmt.Errorf("only %v", got)
			}
			return nil
		}
	}
	gate(1)
	harness.Await(t, time.Minute, "both alerts", told(func(n notification) bool { return n.EndsAt.After(n.at) }))
	slow.Store(true)
	gate(0)
	old := harness.Leader(t, c)
	leading := old.Client()
	defer leading.Close()
	harness.Await(t, time.Minute, "an end that is queued behind the other", func(ctx context.Context) error {
		m, err := leading.Metrics(ctx)
		if err == nil && m.Sum("prometheus_notifications_queue_length") < 1 {
			err = fmt.Errorf("nothing is queued")
		}
		return err
	})
	time.AfterFunc(500*time.Millisecond, answer) // by then a leader that waits for nothing has handed over
	require.NoError(t, old.Stop())
	harness.Await(t, 10*time.Second, "both ends", told(func(n notification) bool { return !n.EndsAt.After(n.at) }))
	require.NotEqual(t, old.Name, harness.Leader(t, c).Name)
}
