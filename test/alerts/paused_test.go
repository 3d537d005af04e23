// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package alerts_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

// valid is for how long an alert says that it fires: four intervals from its evaluation on.
const valid = 4 * time.Second

// TestPausedLeader freezes the leader until another one leads, and lets it go on: it believes that it leads, and must not
// notify. The URL in an alert tells which node has sent it.
func TestPausedLeader(t *testing.T) {
	in := newInbox(t, func(d *json.Decoder) (out []notification, err error) {
		err = d.Decode(&out)
		return out, err
	})
	c := harness.New(t, configure(t, "groups:\n- name: g\n  interval: 1s\n  rules: [{alert: Always, expr: vector(1)}]\n", in.address),
		"--rules.alert.resend-delay=100ms")
	for range 3 {
		old := harness.Leader(t, c)
		awaitFrom(t, in, c, time.Now(), func(sender *local.Server) bool { return sender == old })
		require.NoError(t, old.Pause())
		paused := time.Now()
		awaitFrom(t, in, c, paused.Add(time.Second), func(sender *local.Server) bool { return sender != old })
		require.NoError(t, old.Resume())
		resumed := time.Now()
		leader := harness.Leader(t, c)
		require.NotEqual(t, old.Name, leader.Name)
		awaitFrom(t, in, c, resumed.Add(3*time.Second), func(sender *local.Server) bool { return sender == leader })
		for _, n := range in.list() {
			// What it was about to send when it froze is not its doing any more.
			late := n.EndsAt.After(paused.Add(valid))
			if late && n.at.After(paused) && n.at.Before(resumed.Add(3*time.Second)) {
				require.NotEqual(t, old, sender(c, n), "the deposed leader has notified, %s after it went on", n.at.Sub(resumed))
			}
		}
	}
	starts := map[time.Time]bool{}
	for _, n := range in.list() {
		starts[n.StartsAt] = true
	}
	require.Len(t, starts, 1, "the alert has begun anew")
}

func sender(c *local.Cluster, n notification) *local.Server {
	for _, s := range c.Nodes {
		if _, port, _ := strings.Cut(s.Addr, ":"); strings.Contains(n.GeneratorURL, ":"+port+"/") {
			return s
		}
	}
	return nil
}

// awaitFrom waits for a notification after a time from one of the senders that are asked for.
func awaitFrom(t *testing.T, in *inbox, c *local.Cluster, after time.Time, ok func(*local.Server) bool) {
	t.Helper()
	harness.Await(t, time.Minute, "a notification", func(context.Context) error {
		for _, n := range in.list() {
			if n.at.After(after) && ok(sender(c, n)) {
				return nil
			}
		}
		return errors.New("none yet")
	})
}
