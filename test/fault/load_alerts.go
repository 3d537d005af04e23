// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/deucaliondb/deucalion/test/client"
)

const (
	alertName   = "FaultAlert"
	alertMetric = "fault_alert"
	// alertWrite bounds one call of Alerts.Write; the next one carries newer timestamps.
	alertWrite = 10 * time.Second
	// maxAlerts bounds the memory of a run: a day of one alert every five seconds.
	maxAlerts = 20000
	// alertHold is the shortest time that an alert lasts.
	alertHold = 20 * time.Second
	// alertShift is by how much the starts of an alert may differ: a leader that has no time for the evaluation at which an alert
	// fires, fires it at the next one, and the leader after it works out when it should have been.
	alertShift = 5 * time.Second
)

// Alerts begins and ends alerts, and is the Alertmanager that is told of them. An alert is on while the newest sample of its
// series fault_alert{n="..."} is 1. So rules need not know how many there will be, and a time without writes ends none.
//
// Run, then Finish, then Findings; Doubt at any time; Close at last.
type Alerts struct {
	// Write stores samples in the servers under test. It may try again until its context ends; nil means acknowledged.
	Write func(ctx context.Context, series []prompb.TimeSeries) error
	// Every is the time from the beginning of an alert to that of the next, and Hold the shortest time that one lasts; some last
	// up to twice as long. Hold must be several times the servers' --rules.alert.resend-delay: a notification may get lost. All fields
	// are set before Run.
	Every, Hold time.Duration
	// Outage is the time without an acknowledged write that is taken for a time of doubt: rules were not evaluated either. It is less
	// than Hold, by the time that an alert needs to fire: one that was begun just before an outage of Hold is over with the first write
	// after it, and need never have fired.
	Outage time.Duration

	web *webServer

	mu            sync.Mutex // protects the following
	alerts        []*alertFate
	next          time.Time // when another one begins
	wrote         time.Time // the last time that no write was outstanding
	doubts        [][2]time.Time
	unknown       lineList
	notifications int
}

// alertFate is one alert. Times are zero when it has not happened.
type alertFate struct {
	sent, begun   time.Time // it was to begin, and that was acknowledged
	ending, ended time.Time // it was to end, and that was acknowledged

	start, lastStart time.Time // the earliest and the latest that it was notified with
	told             time.Time // first notification that it is on
	early            time.Time // newest notification that it is over, before it was to end
	over             time.Time // first notification that it is over, after that
	until            time.Time // so long the newest notification holds
	again            bool      // notified as on after it was notified as over
}

// AlertsSummary is what a report says of the alerts of a run.
type AlertsSummary struct {
	Begun    int // alerts whose beginning was acknowledged
	Doubtful int // of these, not judged because of Doubt
	// Notifications of one alert each, repetitions included.
	Notifications int
	// Expired ones were over without a word: their newest notification had run out, as when the leader dies before it tells.
	Expired int
	// Again were told to be on after they were told to be over, as when a message of the last leader is late.
	Again int
	// Shifted ones started at times that differ a little.
	Shifted int
	// Slowest is the longest time from the acknowledgement of a beginning to the first notification.
	Slowest time.Duration
}

// NewAlerts listens on an IP address.
func NewAlerts(listen string) (*Alerts, error) {
	a := &Alerts{Every: 5 * time.Second, Hold: alertHold, Outage: alertHold - 5*time.Second, unknown: lineList{limit: 10}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/alerts", a.receive)
	var err error
	a.web, err = serveWeb(listen, mux)
	return a, err
}

// Address is the host:port of the Alertmanager, for the static_configs of the servers.
func (a *Alerts) Address() string { return a.web.address() }

// Close stops listening.
func (a *Alerts) Close() error { return a.web.close() }

// Rules is a rule file. The range is longer than any time without writes: an alert ends by a 0.
func (a *Alerts) Rules() string {
	return `groups:
- name: fault
  interval: 1s
  rules:
  - alert: ` + alertName + `
    expr: max by (n) (last_over_time(` + alertMetric + `[5m])) == 1
    for: 1s
`
}

// Run begins and ends alerts until ctx ends.
func (a *Alerts) Run(ctx context.Context) {
	a.every(ctx, func() bool {
		a.step(ctx, true)
		return false
	})
}

// Doubt tells that clocks were wrong from one time to the other, or that nobody evaluated rules for over a minute: alerts
// of that time may begin anew, or be missed.
func (a *Alerts) Doubt(from, to time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doubts = append(a.doubts, [2]time.Time{from, to})
}

// Finish lets alerts that are on come to their end, and returns when there was a notification of each one's beginning and
// end, or after timeout. Findings tells which.
func (a *Alerts) Finish(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a.every(ctx, func() bool {
		a.step(ctx, false)
		return a.settled()
	})
}

// every calls f until it says that it is done.
func (a *Alerts) every(ctx context.Context, f func() bool) {
	ticker := time.NewTicker(min(time.Second, a.Every))
	defer ticker.Stop()
	for ctx.Err() == nil && !f() {
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// step writes the state of every alert that has not ended.
func (a *Alerts) step(ctx context.Context, begin bool) {
	series, ones, zeros := a.batch(time.Now(), begin)
	if len(series) > 0 {
		ctx, cancel := context.WithTimeout(ctx, alertWrite)
		defer cancel()
		if a.Write(ctx, series) != nil {
			return // with the next step
		}
	}
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.wrote.IsZero() && now.Sub(a.wrote) > a.Outage {
		a.doubts = append(a.doubts, [2]time.Time{a.wrote, now.Add(alertWrite)})
	}
	a.wrote = now
	for _, f := range ones {
		if f.begun.IsZero() {
			f.begun = now
		}
	}
	for _, f := range zeros {
		f.ended = now
	}
}

func (a *Alerts) batch(now time.Time, begin bool) (series []prompb.TimeSeries, ones, zeros []*alertFate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if begin && !now.Before(a.next) && len(a.alerts) < maxAlerts {
		a.alerts = append(a.alerts, &alertFate{sent: now})
		a.next = now.Add(a.Every)
	}
	for n, f := range a.alerts {
		if !f.ended.IsZero() {
			continue
		}
		value := 1.0
		hold := a.Hold + time.Duration(n%3)*a.Hold/2
		// From the acknowledgement on: it lasts that long for sure.
		if f.ending.IsZero() && !f.begun.IsZero() && now.After(f.begun.Add(hold)) {
			f.ending = now
		}
		if f.ending.IsZero() {
			ones = append(ones, f)
		} else {
			value = 0
			zeros = append(zeros, f)
		}
		series = append(series, prompb.TimeSeries{
			Labels:  client.Labels("__name__", alertMetric, "n", strconv.Itoa(n)),
			Samples: []prompb.Sample{{Timestamp: now.UnixMilli(), Value: value}},
		})
	}
	return series, ones, zeros
}

// alertNotice is what Prometheus tells of an alert. It holds until EndsAt; that is in the past when the alert is over.
type alertNotice struct {
	Labels   map[string]string `json:"labels"`
	StartsAt time.Time         `json:"startsAt"`
	EndsAt   time.Time         `json:"endsAt"`
}

func (a *Alerts) receive(w http.ResponseWriter, r *http.Request) {
	var got []alertNotice
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<20)).Decode(&got); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest) // its sender was killed
		return
	}
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range got {
		if n.Labels["alertname"] == alertName {
			a.note(n, now)
		}
	}
}

func (a *Alerts) note(n alertNotice, now time.Time) {
	a.notifications++
	i, err := strconv.Atoi(n.Labels["n"])
	if err != nil || i < 0 || i >= len(a.alerts) {
		a.unknown.addf("alert %v was never begun and is notified", n.Labels)
		return
	}
	f := a.alerts[i]
	if f.start.IsZero() || n.StartsAt.Before(f.start) {
		f.start = n.StartsAt
	}
	if n.StartsAt.After(f.lastStart) {
		f.lastStart = n.StartsAt
	}
	f.note(n.EndsAt, now)
}

func (f *alertFate) note(until, now time.Time) {
	f.until = until
	switch on := until.After(now); {
	case on && f.told.IsZero():
		f.told = now
	case on:
		f.again = f.again || !f.over.IsZero()
	case f.ending.IsZero():
		f.early = now
	case f.over.IsZero():
		f.over = now
	}
}

// isOver tells whether an Alertmanager takes it for over, and is right.
func (f *alertFate) isOver(now time.Time) bool {
	return !f.ended.IsZero() && !f.until.IsZero() && !f.until.After(now)
}

// doubtful tells whether f has lived at a time of doubt.
func (a *Alerts) doubtful(f *alertFate, now time.Time) bool {
	end := now
	switch {
	case !f.over.IsZero():
		end = f.over
	case f.isOver(now):
		end = f.until
	}
	return slices.ContainsFunc(a.doubts, func(d [2]time.Time) bool { return !f.sent.After(d[1]) && !end.Before(d[0]) })
}

func (a *Alerts) settled() bool {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	return !slices.ContainsFunc(a.alerts, func(f *alertFate) bool {
		return f.ended.IsZero() || (f.told.IsZero() || !f.isOver(now)) && !a.doubtful(f, now)
	})
}

// Findings are the faults of the servers, at most limit and a line that counts the rest. It is called after Finish.
func (a *Alerts) Findings(limit int) []string {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	out := lineList{limit: limit}
	for n, f := range a.alerts {
		if !a.doubtful(f, now) {
			f.judge(&out, n, now)
		}
	}
	for _, line := range a.unknown.lines {
		out.addf("%s", line)
	}
	out.found += a.unknown.found - len(a.unknown.lines)
	return out.list()
}

func (f *alertFate) judge(out *lineList, n int, now time.Time) {
	if f.begun.IsZero() {
		out.addf("alert %d: its beginning was never acknowledged", n)
		return
	}
	if f.lastStart.Sub(f.start) > alertShift {
		out.addf("alert %d fired more than once: it started at %v and at %v", n, f.start, f.lastStart)
	}
	if !f.early.IsZero() {
		out.addf("alert %d was notified as over at %v, while it was on", n, f.early)
	}
	switch {
	case f.until.IsZero():
		out.addf("alert %d was never notified, on since %v", n, f.begun)
	case f.told.IsZero():
		out.addf("alert %d was notified only when it was over, on since %v", n, f.begun)
	case f.ended.IsZero():
		out.addf("alert %d: its end was never acknowledged", n)
	case !f.isOver(now):
		out.addf("alert %d was never notified as over, which it was at %v; the newest notification holds until %v", n, f.ended, f.until)
	}
}

// Summary counts. It is called after Finish.
func (a *Alerts) Summary() AlertsSummary {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	s := AlertsSummary{Notifications: a.notifications}
	for _, f := range a.alerts {
		if f.begun.IsZero() {
			continue
		}
		s.Begun++
		if a.doubtful(f, now) {
			s.Doubtful++
			continue
		}
		if f.isOver(now) && f.over.IsZero() {
			s.Expired++
		}
		if f.again {
			s.Again++
		}
		if shift := f.lastStart.Sub(f.start); shift > 0 && shift <= alertShift {
			s.Shifted++
		}
		if !f.told.IsZero() {
			s.Slowest = max(s.Slowest, f.told.Sub(f.begun))
		}
	}
	return s
}
