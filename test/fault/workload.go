// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/deucaliondb/deucalion/test/client"
)

// WorkloadFlag is for the nodes of a Workload: Alerts wants to hear of an alert often.
const WorkloadFlag = "--rules.alert.resend-delay=5s"

const (
	// partFindings is how many faults a part tells.
	partFindings = 20
	// alertPatience is how long the last alerts of a run may take: the longest hold, and until a notification has run out.
	alertPatience = 2 * time.Minute
)

// Workload is alerts, scrapes and deletes for a System. Make it when the system is laid out, write Config and Rules into the
// nodes' configuration, start the nodes, and give Parts to Run. Close ends it.
type Workload struct {
	Alerts  *Alerts
	Scrapes *Scrapes
	Deletes *Deletes

	system  *System
	readers []Reader
	clients []*client.Client
	rng     *rand.Rand // of write
}

// NewWorkload listens for the nodes of s. readers read what they hold; nil means by remote read.
func NewWorkload(s *System, readers []Reader, seed uint64) (*Workload, error) {
	w := &Workload{system: s, readers: readers, rng: rand.New(rand.NewPCG(seed, 0))}
	for _, n := range s.Nodes {
		w.clients = append(w.clients, n.Client())
		if readers == nil {
			w.readers = append(w.readers, Reader{Name: n.Name, Read: w.clients[len(w.clients)-1].At(client.Linearizable).Read})
		}
	}
	var err, err2 error
	w.Alerts, err = NewAlerts(s.Listen)
	w.Scrapes, err2 = NewScrapes(s.Listen, 10)
	if err := errors.Join(err, err2); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	w.Alerts.Write = w.write
	w.Deletes = NewDeletes(w.clients)
	w.Deletes.Seed, w.Deletes.Late = seed, true
	return w, nil
}

// Config writes the rules into dir and returns the sections of the configuration that the nodes need.
func (w *Workload) Config(dir string) (string, error) {
	rules := filepath.Join(dir, "fault-rules.yml")
	if err := os.WriteFile(rules, []byte(w.Alerts.Rules()), 0o644); err != nil {
		return "", err
	}
	return w.Sections(rules), nil
}

// Sections are those of the configuration that the nodes need, when Alerts.Rules is in the file rules.
func (w *Workload) Sections(rules string) string {
	return fmt.Sprintf("\nrule_files: [%q]\nalerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}\nscrape_configs:\n%s",
		rules, w.Alerts.Address(), w.Scrapes.ScrapeConfig())
}

// Parts are for Options: alerts, deletes, scrapes.
func (w *Workload) Parts() []Part {
	return []Part{&alertsPart{Alerts: w.Alerts}, &deletesPart{workload: w}, &scrapesPart{w}}
}

// Close stops listening.
func (w *Workload) Close() error {
	var errs []error
	for _, c := range w.clients {
		c.Close()
	}
	if w.Alerts != nil {
		errs = append(errs, w.Alerts.Close())
	}
	if w.Scrapes != nil {
		errs = append(errs, w.Scrapes.Close())
	}
	return errors.Join(errs...)
}

// write tries random nodes until one acknowledges. There is one call of it at a time.
func (w *Workload) write(ctx context.Context, series []prompb.TimeSeries) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := w.clients[w.rng.IntN(len(w.clients))].Write(attempt, series)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// background is something that runs until it is stopped.
type background struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func (b *background) start(ctx context.Context, run func(context.Context)) {
	ctx, b.cancel = context.WithCancel(ctx)
	b.wg.Go(func() { run(ctx) })
}

func (b *background) stop() {
	b.cancel()
	b.wg.Wait()
}

type alertsPart struct {
	*Alerts // for Doubt

	run background
}

// Start implements Part.
func (p *alertsPart) Start(ctx context.Context) { p.run.start(ctx, p.Run) }

// Finish implements Part.
func (p *alertsPart) Finish(ctx context.Context) []string {
	p.run.stop()
	p.Alerts.Finish(ctx, alertPatience)
	return p.Findings(partFindings)
}

// Summary implements Part.
func (p *alertsPart) Summary() string {
	s := p.Alerts.Summary()
	return fmt.Sprintf("Alerts: %d begun and ended, %d notifications, at most %s after the alert was on; the end of %d was not told but expired, "+
		"%d were told again after their end, the start of %d was shifted by missed evaluations; %d not judged, for clocks were wrong or all was down.",
		s.Begun, s.Notifications, short(s.Slowest), s.Expired, s.Again, s.Shifted, s.Doubtful)
}

type scrapesPart struct{ *Workload }

// Start implements Part: the nodes scrape by themselves.
func (p *scrapesPart) Start(context.Context) {}

// Finish implements Part.
func (p *scrapesPart) Finish(ctx context.Context) []string {
	found, err := p.Scrapes.Check(ctx, p.readers, p.system.Cluster, partFindings)
	if err != nil {
		found = append(found, err.Error())
	}
	return found
}

// Summary implements Part.
func (p *scrapesPart) Summary() string {
	s := p.Scrapes.Summary()
	return fmt.Sprintf("Scrapes: %d targets, %d scrapes answered, %d stored; at most %s between two of a target.", s.Targets, s.Served, s.Stored, short(s.Gap))
}

type deletesPart struct {
	workload *Workload
	run      background
}

// Start implements Part.
func (p *deletesPart) Start(ctx context.Context) { p.run.start(ctx, p.workload.Deletes.Run) }

// Finish implements Part.
func (p *deletesPart) Finish(ctx context.Context) (found []string) {
	p.run.stop()
	matcher := &prompb.LabelMatcher{Type: prompb.LabelMatcher_EQ, Name: "__name__", Value: deleteMetric}
	for _, r := range p.workload.readers {
		data, err := r.Read(ctx, 0, allTime, matcher)
		if err != nil {
			found = append(found, fmt.Sprintf("deletes: %s: %v", r.Name, err))
			continue
		}
		for _, line := range p.workload.Deletes.Check(data, partFindings) {
			found = append(found, r.Name+": "+line)
		}
	}
	return found
}

// Summary implements Part.
func (p *deletesPart) Summary() string {
	s := p.workload.Deletes.Summary()
	return fmt.Sprintf("Deletes: %d of %d acknowledged; of %d acknowledged samples of these series %d must be there, %d must not.",
		s.Acked, s.Deletes, s.Samples, s.Present, s.Gone)
}
