// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package alerts_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/internal/freeport"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

const (
	killEvery = 20 * time.Second
	// resend is short, so that an Alertmanager takes an alert for resolved that it does not hear of for 20 s.
	resend = "5s"
	// lasts is how long an alert holds that ends.
	lasts = 16 * time.Second
)

// alert of the test: it begins to hold at a time and may end at another.
type alert struct {
	name       string
	begin, end time.Time // end is zero when it never ends
}

// planAlerts spreads alerts over the time of the test, so that some begin and some end while there is no leader.
func planAlerts(start time.Time, length time.Duration) (out []alert) {
	for at := 5 * time.Second; at < length; at += 3 * time.Second {
		a := alert{name: fmt.Sprintf("A%03d", len(out)), begin: start.Add(at)}
		if len(out)%2 == 0 && at+lasts < length {
			a.end = a.begin.Add(lasts)
		}
		out = append(out, a)
	}
	return out
}

// ruleFile has an alert for each, on a series that another rule records.
func ruleFile(alerts []alert) string {
	var b strings.Builder
	b.WriteString("groups:\n- name: g\n  rules:\n  - record: now\n    expr: time()\n")
	for i, a := range alerts {
		end := ""
		if !a.end.IsZero() {
			end = fmt.Sprintf(" < %d", a.end.Unix())
		}
		hold := []string{"0s", "4s", "8s"}[i%3]
		fmt.Fprintf(&b, "  - alert: %s\n    expr: now >= %d%s\n    for: %s\n    labels: {n: '%d'}\n", a.name, a.begin.Unix(), end, hold, i)
	}
	return b.String()
}

// startAlertmanager starts Debian's Alertmanager, which tells the inbox.
func startAlertmanager(t *testing.T) (*local.Server, *inbox) {
	t.Helper()
	bin, err := exec.LookPath("prometheus-alertmanager")
	if err != nil {
		t.Skip("no Alertmanager here; test/scripts/debian-prometheus.sh installs one")
	}
	in := newInbox(t, func(d *json.Decoder) ([]notification, error) {
		var hook struct {
			Alerts []notification `json:"alerts"`
		}
		err := d.Decode(&hook)
		return hook.Alerts, err
	})
	dir := t.TempDir()
	conf := filepath.Join(dir, "alertmanager.yml")
	require.NoError(t, os.WriteFile(conf, []byte("route: {receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 24h}\n"+
		"receivers: [{name: hook, webhook_configs: [{url: 'http://"+in.address+"/', send_resolved: true}]}]\n"), 0o644))
	var ports freeport.Ports
	t.Cleanup(ports.Release)
	s, err := local.NewProgram(bin, dir, &ports, func(addr string) []string {
		return []string{
			"--config.file=" + conf, "--storage.path=" + filepath.Join(dir, "data"),
			"--web.listen-address=" + addr, "--cluster.listen-address=",
		}
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Kill() })
	require.NoError(t, s.Start())
	harness.WaitReady(t, s)
	return s, in
}

// TestEachAlertOnce kills the leader every 20 s, for DEUCALION_ALERTS_SECONDS (60), while alerts begin and end. Two real
// Alertmanagers, which know nothing of each other, must each notify of each alert once, and of its end once.
func TestEachAlertOnce(t *testing.T) {
	am1, in1 := startAlertmanager(t)
	am2, in2 := startAlertmanager(t)
	length := time.Duration(harness.Number(t, "DEUCALION_ALERTS_SECONDS", 60)) * time.Second
	flag := configure(t, "groups: []", am1.Addr, am2.Addr)
	c := harness.New(t, flag, "--rules.alert.resend-delay="+resend)
	start := time.Now().Add(5 * time.Second) // for the nodes to reload
	alerts := planAlerts(start, length)
	setRules(t, flag, ruleFile(alerts))
	reload(t, c)

	kills := 0
	for next := start.Add(killEvery / 2); time.Now().Before(start.Add(length)); next = next.Add(killEvery) {
		if !sleepUntil(t, next, start.Add(length)) {
			break
		}
		leader := harness.Leader(t, c)
		require.NoError(t, leader.Kill())
		kills++
		t.Logf("%s killed", leader.Name)
		harness.Leader(t, c)
		harness.Start(t, c)
	}
	require.NotZero(t, kills)
	harness.Await(t, 90*time.Second, "all notifications", func(context.Context) error {
		return errors.Join(missing(in1, alerts), missing(in2, alerts))
	})
	checkRules(t, c, alerts)
	// A second notification would come with an evaluation of the alerts as they are now, or when the Alertmanager takes
	// one for resolved that it does not hear of.
	if !sleepUntil(t, time.Now().Add(25*time.Second), time.Time{}) {
		return
	}
	for _, in := range []*inbox{in1, in2} {
		requireOnce(t, in, alerts)
	}
	t.Logf("%d alerts, %d kills", len(alerts), kills)
}

// requireOnce insists that an Alertmanager has notified of each alert once, and of its end if it has one.
func requireOnce(t *testing.T, in *inbox, alerts []alert) {
	t.Helper()
	firing, resolved := count(in)
	for _, a := range alerts {
		require.Equal(t, 1, firing[a.name], "notifications of %+v: %+v", a, about(in, a.name))
		want := 0
		if !a.end.IsZero() {
			want = 1
		}
		require.Equal(t, want, resolved[a.name], "ends of %+v: %+v", a, about(in, a.name))
	}
}

// checkRules insists that every node tells the same alerts, which are those that have not ended.
func checkRules(t *testing.T, c *local.Cluster, alerts []alert) {
	t.Helper()
	want := map[string]bool{}
	for _, a := range alerts {
		if a.end.IsZero() {
			want[a.name] = true
		}
	}
	for _, n := range c.Nodes {
		cl := n.Client()
		var data struct {
			Alerts []struct {
				Labels map[string]string `json:"labels"`
				State  string            `json:"state"`
			} `json:"alerts"`
		}
		require.NoError(t, cl.Data(t.Context(), "/api/v1/alerts", nil, &data), n.Name)
		cl.Close()
		got := map[string]bool{}
		for _, a := range data.Alerts {
			require.Equal(t, "firing", a.State, "%s: %v", n.Name, a.Labels)
			got[a.Labels["alertname"]] = true
		}
		require.Equal(t, want, got, n.Name)
	}
}

// sleepUntil waits; false when the limit comes first or the test ends.
func sleepUntil(t *testing.T, at, limit time.Time) bool {
	t.Helper()
	if !limit.IsZero() && at.After(limit) {
		return false
	}
	select {
	case <-t.Context().Done():
		return false
	case <-time.After(time.Until(at)):
		return true
	}
}

func count(in *inbox) (firing, resolved map[string]int) {
	firing, resolved = map[string]int{}, map[string]int{}
	for _, n := range in.list() {
		if n.Status == "resolved" {
			resolved[n.Labels["alertname"]]++
		} else {
			firing[n.Labels["alertname"]]++
		}
	}
	return firing, resolved
}

func about(in *inbox, name string) (out []notification) {
	for _, n := range in.list() {
		if n.Labels["alertname"] == name {
			out = append(out, n)
		}
	}
	return out
}

var errMissing = errors.New("not notified yet")

func missing(in *inbox, alerts []alert) error {
	firing, resolved := count(in)
	for _, a := range alerts {
		if firing[a.name] == 0 || !a.end.IsZero() && resolved[a.name] == 0 {
			return fmt.Errorf("%w: %+v", errMissing, a)
		}
	}
	return nil
}
