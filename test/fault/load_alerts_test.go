// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/fault"
)

// ruler plays servers that evaluate the rules: it is written to and notifies.
type ruler struct {
	t      *testing.T
	alerts *fault.Alerts
	// change makes it misbehave: it gets each notice before it is sent, and how often the alert was written.
	change func(n string, times int, notice map[string]any) []map[string]any
	refuse func() bool

	mu    sync.Mutex
	times map[string]int
	start map[string]time.Time
}

func (r *ruler) write(_ context.Context, series []prompb.TimeSeries) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != nil && r.refuse() {
		return errors.New("no leader")
	}
	var notices []map[string]any
	for _, ts := range series {
		n := ts.Labels[1].Value
		r.times[n]++
		if r.times[n] == 1 {
			r.start[n] = time.Now()
		}
		ends := time.Now().Add(time.Hour)
		if ts.Samples[0].Value == 0 {
			ends = time.Now().Add(-time.Millisecond)
		}
		notice := map[string]any{
			"labels":   map[string]string{"alertname": "FaultAlert", "n": n},
			"startsAt": r.start[n], "endsAt": ends, "annotations": map[string]string{},
		}
		if r.change == nil {
			notices = append(notices, notice)
		} else {
			notices = append(notices, r.change(n, r.times[n], notice)...)
		}
	}
	r.notify(notices)
	return nil
}

func (r *ruler) notify(notices []map[string]any) {
	body, err := json.Marshal(notices)
	if err != nil {
		r.t.Error(err)
		return
	}
	resp, err := http.Post("http://"+r.alerts.Address()+"/api/v2/alerts", "application/json", strings.NewReader(string(body)))
	if err != nil {
		r.t.Error(err)
		return
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		r.t.Errorf("answered with %s", resp.Status)
	}
}

// notify runs alerts against r until the function that it returns is called, which finishes.
func notify(t *testing.T, r *ruler, outage time.Duration) (*fault.Alerts, func()) {
	t.Helper()
	a, err := fault.NewAlerts("127.0.0.1")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	r.t, r.alerts, r.times, r.start = t, a, map[string]int{}, map[string]time.Time{}
	a.Write, a.Every, a.Hold, a.Outage = r.write, 20*time.Millisecond, 500*time.Millisecond, outage
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Run(ctx)
	}()
	return a, func() {
		cancel()
		<-done
		a.Finish(t.Context(), 5*time.Second)
	}
}

// notified runs alerts against r until some have begun, and finishes.
func notified(t *testing.T, r *ruler) *fault.Alerts {
	t.Helper()
	a, finish := notify(t, r, time.Hour)
	require.Eventually(t, func() bool { return a.Summary().Begun >= 5 }, 30*time.Second, 5*time.Millisecond)
	finish()
	return a
}

func TestAlerts(t *testing.T) {
	writes := 0
	a := notified(t, &ruler{refuse: func() bool { writes++; return writes%3 == 0 }})
	require.Empty(t, a.Findings(10))
	s := a.Summary()
	require.GreaterOrEqual(t, s.Begun, 5)
	require.Greater(t, s.Notifications, 2*s.Begun)
	require.Zero(t, s.Doubtful+s.Expired+s.Again)
}

// An alert whose newest notification has run out is over for an Alertmanager.
func TestAlertsExpire(t *testing.T) {
	a := notified(t, &ruler{change: func(_ string, _ int, notice map[string]any) []map[string]any {
		if notice["endsAt"].(time.Time).Before(time.Now()) {
			return nil
		}
		notice["endsAt"] = time.Now().Add(time.Second)
		return []map[string]any{notice}
	}})
	require.Empty(t, a.Findings(10))
	require.Equal(t, a.Summary().Begun, a.Summary().Expired)
}

func TestAlertsFindFaults(t *testing.T) {
	over := func(notice map[string]any) bool { return notice["endsAt"].(time.Time).Before(time.Now()) }
	for name, fail := range map[string]struct {
		change func(times int, notice map[string]any) []map[string]any
		want   string
	}{
		"silent": {func(int, map[string]any) []map[string]any { return nil }, "alert 2 was never notified, on since"},
		"late": {func(_ int, notice map[string]any) []map[string]any {
			if !over(notice) {
				return nil
			}
			return []map[string]any{notice}
		}, "alert 2 was notified only when it was over"},
		"anew": {func(times int, notice map[string]any) []map[string]any {
			if times == 2 {
				notice["startsAt"] = time.Now().Add(10 * time.Second)
			}
			return []map[string]any{notice}
		}, "alert 2 fired more than once"},
		"early": {func(times int, notice map[string]any) []map[string]any {
			if times == 2 {
				notice["endsAt"] = time.Now().Add(-time.Second)
			}
			return []map[string]any{notice}
		}, "alert 2 was notified as over at"},
		"endless": {func(_ int, notice map[string]any) []map[string]any {
			if over(notice) {
				return nil
			}
			return []map[string]any{notice}
		}, "alert 2 was never notified as over"},
		"unknown": {func(times int, notice map[string]any) []map[string]any {
			if times > 1 {
				return []map[string]any{notice}
			}
			return []map[string]any{notice, {"labels": map[string]string{"alertname": "FaultAlert", "n": "999"}}}
		}, "alert map[alertname:FaultAlert n:999] was never begun"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // those that never end wait for it
			change := func(n string, times int, notice map[string]any) []map[string]any {
				if n != "2" {
					return []map[string]any{notice}
				}
				return fail.change(times, notice)
			}
			a := notified(t, &ruler{change: change})
			found := a.Findings(10)
			require.Len(t, found, 1)
			require.True(t, strings.HasPrefix(found[0], fail.want), found[0])
			// Nobody is to blame while clocks are wrong.
			a.Doubt(time.Now().Add(-time.Hour), time.Now())
			if name != "unknown" {
				require.Empty(t, a.Findings(10))
			}
			require.Equal(t, a.Summary().Begun, a.Summary().Doubtful)
		})
	}
}

// A start that differs by missed evaluations is no second alert.
func TestAlertsShift(t *testing.T) {
	a := notified(t, &ruler{change: func(_ string, times int, notice map[string]any) []map[string]any {
		if times == 2 {
			notice["startsAt"] = notice["startsAt"].(time.Time).Add(-2 * time.Second)
		}
		return []map[string]any{notice}
	}})
	require.Empty(t, a.Findings(10))
	require.Equal(t, a.Summary().Begun, a.Summary().Shifted)
}

// While no write is acknowledged for long, alerts may begin anew.
func TestAlertsOfAnOutage(t *testing.T) {
	outage := time.Time{}
	r := &ruler{change: func(_ string, _ int, notice map[string]any) []map[string]any {
		if !outage.IsZero() {
			notice["startsAt"] = time.Now().Add(10 * time.Second)
		}
		return []map[string]any{notice}
	}}
	r.refuse = func() bool { return !outage.IsZero() && time.Since(outage) < time.Second }
	a, finish := notify(t, r, 500*time.Millisecond)
	require.Eventually(t, func() bool { return a.Summary().Begun >= 2 }, 30*time.Second, 5*time.Millisecond)
	r.mu.Lock()
	outage = time.Now()
	r.mu.Unlock()
	require.Eventually(t, func() bool { return a.Summary().Doubtful >= 2 }, 30*time.Second, 5*time.Millisecond)
	finish()
	require.Empty(t, a.Findings(10))
}

// Only alerts that were there at the time of doubt are not judged.
func TestAlertsDoubt(t *testing.T) {
	a := notified(t, &ruler{change: func(_ string, times int, notice map[string]any) []map[string]any {
		if times == 2 {
			notice["startsAt"] = time.Now().Add(10 * time.Second)
		}
		return []map[string]any{notice}
	}})
	begun := a.Summary().Begun
	require.Len(t, a.Findings(100), begun)
	a.Doubt(time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))
	a.Doubt(time.Now(), time.Now().Add(time.Minute))
	require.Len(t, a.Findings(100), begun)
	require.Len(t, a.Findings(2), 3, "two and a count")
}

// The rules are as Prometheus wants them.
func TestAlertRules(t *testing.T) {
	a, err := fault.NewAlerts("127.0.0.1")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	file := filepath.Join(t.TempDir(), "rules.yml")
	require.NoError(t, os.WriteFile(file, []byte(a.Rules()), 0o644))
	groups, errs := rulefmt.ParseFile(file, false, model.UTF8Validation, parser.NewParser(parser.Options{}), promslog.NewNopLogger())
	require.Empty(t, errs)
	require.Len(t, groups.Groups, 1, fmt.Sprint(groups))
}
