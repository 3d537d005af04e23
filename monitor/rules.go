// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/features"
)

const (
	beginAgain   = 5 * time.Second       // after a term that could not begin
	confirmAgain = 50 * time.Millisecond // after a question whether this node leads
)

// RulerCluster is what a Ruler needs of *cluster.Node.
type RulerCluster interface {
	// RunDuty runs fn whenever this node leads; its context ends with the leadership.
	RunDuty(fn func(ctx context.Context))
	// ConfirmLeader is nil when this node leads, as a majority has said after the call.
	ConfirmLeader(ctx context.Context) error
}

// RulerOptions configure a Ruler. All fields must be given unless they say otherwise.
type RulerOptions struct {
	Cluster RulerCluster
	// Appendable takes what rules record, Queryable is this node's state, and Engine queries Source, which is that state
	// and perhaps more.
	Appendable storage.Appendable
	Queryable  storage.Queryable
	Source     storage.Queryable
	Engine     promql.QueryEngine
	// Parser is the one that Engine was made with.
	Parser parser.Parser

	// OutageTolerance, ForGracePeriod and ResendDelay are the flags --rules.alert.* of Prometheus.
	OutageTolerance, ForGracePeriod, ResendDelay time.Duration
	// ConcurrentEvals evaluates independent rules of a group at once, at most MaxConcurrentEvals of all groups.
	ConcurrentEvals    bool
	MaxConcurrentEvals int64

	// QueueCapacity (alerts for each Alertmanager), MaxBatchSize and Drain are the flags --alertmanager.* of Prometheus.
	QueueCapacity, MaxBatchSize int
	Drain                       bool

	// SDMetrics are those of the service discovery of the whole process.
	SDMetrics *discovery.SDMetrics
	// Features is shown by /api/v1/features; may be nil.
	Features   features.Collector
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Ruler evaluates rules and notifies Alertmanagers while this node leads, with Prometheus's managers, which live for one
// term. Its state is what the rules have recorded: the next leader goes on from there, see resume.go. Goroutine-safe.
type Ruler struct {
	opts    RulerOptions
	logger  *slog.Logger
	metrics *rulerMetrics
	found   *alertmanagers

	applyMu sync.Mutex // held while a configuration is put in force; protects the following
	plan    *plan      // nil before the first ApplyConfig

	planned  chan struct{}   // closed by the first ApplyConfig
	stopping context.Context // ended by Stop
	stop     context.CancelFunc
	hurry    context.Context // ended when Stop has no more time
	cut      context.CancelFunc
	dutyMu   sync.Mutex           // held for the length of a term
	current  atomic.Pointer[term] // nil while this node does not evaluate
}

// NewRuler registers its metrics and starts looking for Alertmanagers. It evaluates nothing before the first ApplyConfig.
// Stop ends it.
func NewRuler(o RulerOptions) (*Ruler, error) {
	r := &Ruler{opts: o, logger: o.Logger.With("component", "rules"), planned: make(chan struct{})}
	r.stopping, r.stop = context.WithCancel(context.Background())
	r.hurry, r.cut = context.WithCancel(context.Background())
	r.metrics = newRulerMetrics(o.Registerer, func() bool { return r.current.Load() != nil })
	var err error
	if r.found, err = findAlertmanagers(o); err != nil {
		return nil, err
	}
	o.Cluster.RunDuty(r.duty)
	return r, nil
}

// ApplyConfig puts the rule files, the global section and the alerting section of c in force. It works on every node: one
// that does not lead reads and checks the files, and keeps what it has read for the day it leads. After an error the
// former configuration stays. It waits while a term begins.
func (r *Ruler) ApplyConfig(c *config.Config, externalURL *url.URL) error {
	p, err := newPlan(c, externalURL, r.opts.Parser, r.logger)
	if err != nil {
		return err
	}
	if err := checkNotifier(c); err != nil {
		return fmt.Errorf("notifier: %w", err)
	}
	r.applyMu.Lock()
	defer r.applyMu.Unlock()
	first := r.plan == nil
	if t := r.current.Load(); t != nil {
		if err := t.apply(p); err != nil {
			return errors.Join(err, r.found.applyConfig(r.plan.conf)) // the notifier wants to be told again what there is
		}
	}
	// After the notifier: the former one would take away what is found, and static Alertmanagers are not found again.
	if err := r.found.applyConfig(c); err != nil {
		return fmt.Errorf("alertmanager discovery: %w", err)
	}
	r.plan = p
	if first {
		close(r.planned)
	}
	return nil
}

// duty is one term.
func (r *Ruler) duty(ctx context.Context) {
	r.dutyMu.Lock()
	defer r.dutyMu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.hurry, cancel)()
	select {
	case <-r.planned:
	case <-ctx.Done():
		return
	case <-r.stopping.Done():
		return
	}
	t := r.beginTerm(ctx)
	for t == nil && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-r.stopping.Done():
			return
		case <-time.After(beginAgain):
			t = r.beginTerm(ctx)
		}
	}
	if t == nil {
		return
	}
	select {
	case <-ctx.Done():
	case <-r.stopping.Done():
	}
	r.current.Store(nil)
	t.end()
}

// beginTerm returns nil when it did not succeed.
func (r *Ruler) beginTerm(ctx context.Context) *term {
	r.applyMu.Lock()
	defer r.applyMu.Unlock()
	begin, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.stopping, cancel)()
	t, err := r.newTerm(ctx, begin, r.plan)
	if err != nil {
		if begin.Err() == nil {
			r.metrics.failures.Inc()
			r.logger.Error("Rules are not evaluated, trying again", "err", err)
		}
		return nil
	}
	r.current.Store(t)
	return t
}

// confirm returns nil when this node leads, and tries for as long as ctx lasts.
func (r *Ruler) confirm(ctx context.Context) error {
	for {
		err := r.opts.Cluster.ConfirmLeader(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(confirmAgain):
		}
	}
}

// Stop ends evaluation for good, when the rules under way are done. If this node leads, it sends the alerts that are
// queued when Drain says so, for at most 10 s: call it before the leadership is handed over, for only a leader sends. When
// ctx ends, it cuts both short.
func (r *Ruler) Stop(ctx context.Context) {
	defer context.AfterFunc(ctx, r.cut)()
	r.stop()
	r.dutyMu.Lock()
	defer r.dutyMu.Unlock()
	r.found.stop()
}

// Evaluates is nil when the rules are evaluated on this node, confirmed by a majority after the call. Bounded by ctx.
func (r *Ruler) Evaluates(ctx context.Context) error {
	if r.current.Load() == nil {
		return errors.New("rules are not evaluated on this node")
	}
	if err := r.opts.Cluster.ConfirmLeader(ctx); err != nil {
		return err
	}
	if r.current.Load() == nil {
		return errors.New("rules are not evaluated on this node any more")
	}
	return nil
}

// RuleGroups are the groups that this node evaluates.
func (r *Ruler) RuleGroups() []*rules.Group {
	if t := r.current.Load(); t != nil {
		return t.rules.RuleGroups()
	}
	return nil
}

// AlertingRules are those of the groups that this node evaluates.
func (r *Ruler) AlertingRules() []*rules.AlertingRule {
	if t := r.current.Load(); t != nil {
		return t.rules.AlertingRules()
	}
	return nil
}

// Alertmanagers are those that this node notifies.
func (r *Ruler) Alertmanagers() []*url.URL {
	if t := r.current.Load(); t != nil {
		return t.notify.manager.Alertmanagers()
	}
	return nil
}

// DroppedAlertmanagers were discovered and dropped by relabelling.
func (r *Ruler) DroppedAlertmanagers() []*url.URL {
	if t := r.current.Load(); t != nil {
		return t.notify.manager.DroppedAlertmanagers()
	}
	return nil
}
