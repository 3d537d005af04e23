// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/ledger"
	"github.com/deucaliondb/deucalion/test/local"
)

// Options say what a run is.
type Options struct {
	System *System
	Seed   uint64
	Time   time.Duration // after which no more faults begin
	Faults int           // so many at most; 0 means that only the time counts
	Epoch  int           // faults between two audits; 0 means 20
	Floor  float64       // share of the offered samples that must be acknowledged over the whole run
	Parts  []Part        // of the workload, beside ledger and registers
	// Floats leaves histograms out of the ledger, for servers that do not take them as late as others.
	Floats bool
	// Read reads the samples of the series with a label run=... from a node; nil means by remote read.
	Read func(ctx context.Context, n *Node, run string) (client.Data, error)
	// Logf tells how it goes.
	Logf func(format string, args ...any)
	// Kinds are the faults to choose from; nil means all.
	Kinds []Fault
}

// Part is a part of a workload that judges itself.
type Part interface {
	// Start starts it in the background. The nodes are ready.
	Start(ctx context.Context)
	// Finish ends it and returns what was wrong. The nodes are ready.
	Finish(ctx context.Context) []string
	// Summary tells what it has done.
	Summary() string
}

// The load of the ledger: what is offered is known, so that the floor of the throughput is a share of it.
const (
	ledgerWriters  = 4
	ledgerSeries   = 10
	ledgerSamples  = 2
	ledgerInterval = 50 * time.Millisecond
	ledgerLate     = 2 * time.Minute // by how much the samples of one writer are out of order
)

// auditTimeout bounds the audit at the end of an epoch.
const auditTimeout = 5 * time.Minute

// run is a run under way.
type run struct {
	Options

	nemesis *Nemesis
	gaps    Gaps
	report  *Report
	books   []*ledger.Ledger
}

// Run starts the nodes of a system that do not run, puts the workload on it, and does faults until the time is up or
// something is wrong. The error is about the run itself; what was wrong with the system is in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Epoch == 0 {
		o.Epoch = 20
	}
	if o.Kinds == nil {
		o.Kinds = Faults()
	}
	r := &run{Options: o, report: newReport(o)}
	starter := Nemesis{System: o.System}
	err := starter.Heal(ctx)
	if err == nil {
		err = o.System.awaitBalancer(ctx)
	}
	if err != nil {
		return nil, err
	}
	if r.nemesis, err = NewNemesis(o.System, o.Kinds, o.Seed); err != nil {
		return nil, err
	}
	for _, p := range o.Parts {
		p.Start(ctx)
		if d, ok := p.(interface{ Doubt(from, to time.Time) }); ok {
			r.nemesis.Doubt = d.Doubt
		}
	}
	end := time.Now().Add(o.Time)
	for !r.done(end) {
		if err := r.epoch(ctx, end); err != nil {
			for _, p := range o.Parts { // their goroutines end; what they find does not count any more
				p.Finish(ctx)
			}
			return nil, err
		}
	}
	return r.finish(ctx)
}

func (r *run) done(end time.Time) bool {
	return !r.report.Green() || time.Now().After(end) || r.Faults > 0 && len(r.report.Rounds) >= r.Faults
}

// epoch does some faults under load, then ends the load and judges what is there.
func (r *run) epoch(ctx context.Context, end time.Time) error {
	name := fmt.Sprintf("%d-%d", r.Seed, len(r.books)+1)
	book := ledger.New(name)
	r.books = append(r.books, book)
	begin := time.Now()
	writers, release := r.write(book)
	defer release()
	registers := StartRegisters(r.System, name, r.Seed+uint64(len(r.books)), &r.gaps)
	for _, g := range r.gaps.all() {
		g.Resume()
	}
	for range r.Epoch {
		if r.done(end) || ctx.Err() != nil {
			break
		}
		r.round(ctx, book, registers)
	}
	for _, w := range writers {
		w.Finish()
	}
	registers.Stop()
	for _, g := range r.gaps.all() {
		g.Halt()
	}
	sent, acked := book.Samples()
	r.report.Sent += sent
	r.report.Acked += acked
	r.report.Seconds += time.Since(begin).Seconds()
	r.report.Offered += int(time.Since(begin)/ledgerInterval) * ledgerWriters * ledgerSeries * ledgerSamples
	r.report.find(registers.Judge()...)
	r.report.Registers.add(registers.Counts())
	r.report.find(book.Faults()...)
	r.audit(ctx, len(r.books))
	r.digest(ctx)
	r.Logf("epoch %d: %d faults, %s, registers %+v", len(r.books), len(r.report.Rounds), book.Summary(), registers.Counts())
	return ctx.Err()
}

// write starts the writers of a ledger, one of which is late.
func (r *run) write(book *ledger.Ledger) (writers []*ledger.Writers, release func()) {
	var targets []*client.Client
	for _, n := range r.System.Nodes {
		targets = append(targets, n.Client())
		if r.System.Balancer != "" {
			targets = append(targets, client.New(r.System.Balancer))
		}
	}
	load := ledger.Load{
		Targets: targets, Balancer: r.System.Balancer, Writers: ledgerWriters - 1, Series: ledgerSeries, Floats: r.Floats, Samples: ledgerSamples,
		Interval: ledgerInterval, Acked: r.gaps.Writes.Mark, Seed: r.Seed,
	}
	late := load
	late.Writers, late.Late = 1, ledgerLate
	return []*ledger.Writers{book.StartWriters(load), book.StartWriters(late)}, func() {
		for _, c := range targets {
			c.Close()
		}
	}
}

// round does one fault, heals it, and waits until writes go on.
func (r *run) round(ctx context.Context, book *ledger.Ledger, registers *Registers) {
	if err := r.System.awaitBalancer(ctx); err != nil {
		r.report.find(err.Error())
		return
	}
	f := r.nemesis.Next()
	for _, g := range r.gaps.all() {
		g.Take()
	}
	sent, acked := book.Samples()
	failed, _ := registers.Failed()
	round := Round{Fault: f.Name, Begin: time.Now()}
	what, err := f.Do(ctx, r.nemesis)
	round.Detail = what
	healed := time.Now()
	if err != nil {
		r.report.find(fmt.Sprintf("%s (%s): %v", f.Name, what, err))
	}
	if err := r.nemesis.Heal(ctx); err != nil {
		r.report.find(fmt.Sprintf("after %s (%s): %v", f.Name, what, err))
	}
	if err := r.progress(ctx, book); err != nil {
		r.report.find(fmt.Sprintf("after %s (%s): no write is acknowledged: %v", f.Name, what, err))
	}
	round.End = time.Now()
	round.Recovery = time.Since(healed)
	round.Writes, round.Reads, round.Linear = r.gaps.Writes.Take(), r.gaps.Reads.Take(), r.gaps.Linear.Take()
	sentNow, ackedNow := book.Samples()
	round.Sent, round.Acked = sentNow-sent, ackedNow-acked
	if n, why := registers.Failed(); n > failed {
		round.Failed, round.Why = n-failed, why
	}
	r.report.Rounds = append(r.report.Rounds, round)
	r.Logf("%4d %s (%s): %s", len(r.report.Rounds), f.Name, what, round)
}

var errNoProgress = errors.New("too few writes")

func (r *run) progress(ctx context.Context, book *ledger.Ledger) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	want := book.Acks() + 10
	return local.Poll(ctx, func(context.Context) error {
		if book.Acks() < want {
			return errNoProgress
		}
		return nil
	})
}

// audit holds what each node has against the book of an epoch.
func (r *run) audit(ctx context.Context, epoch int) {
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	book := r.books[epoch-1]
	for _, n := range r.System.Nodes {
		data, err := r.read(ctx, n, fmt.Sprintf("%d-%d", r.Seed, epoch))
		if err != nil {
			r.report.find(fmt.Sprintf("%s: data of epoch %d: %v", n.Name, epoch, err))
			continue
		}
		found := book.Audit(data)
		r.report.blame(n, found)
	}
}

func (r *run) read(ctx context.Context, n *Node, name string) (client.Data, error) {
	if r.Read != nil {
		return r.Read(ctx, n, name)
	}
	cl := n.Client().At(client.Linearizable)
	defer cl.Close()
	return cl.Read(ctx, 0, 1<<50,
		&prompb.LabelMatcher{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: "ledger_.*"},
		&prompb.LabelMatcher{Type: prompb.LabelMatcher_EQ, Name: "run", Value: name})
}

// digest has the nodes compare all that they hold at one index of the log.
func (r *run) digest(ctx context.Context) {
	if !r.System.Cluster {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	cl := r.System.Nodes[0].Client()
	defer cl.Close()
	d, err := cl.Digest(ctx)
	switch {
	case err != nil:
		r.report.find(fmt.Sprintf("digest: %v", err))
	case d.Result != "equal":
		r.report.find(fmt.Sprintf("digest: %s: %+v", d.Result, d.Differing))
	default:
		r.report.Digests++
	}
}

// finish ends the other parts, and audits every epoch once more: what was there must have stayed.
func (r *run) finish(ctx context.Context) (*Report, error) {
	for _, p := range r.Parts {
		r.report.find(p.Finish(ctx)...)
		r.report.Parts = append(r.report.Parts, p.Summary())
	}
	if r.report.Green() {
		for i := range r.books[:len(r.books)-1] {
			r.audit(ctx, i+1)
		}
	}
	r.report.end(r.Floor)
	return r.report, ctx.Err()
}
