// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/notifier"
)

// drainTimeout bounds the sending of what is queued when the node stops.
const drainTimeout = 10 * time.Second

// maxNotifyAnswer bounds what is read of the answer to a notification; only its status matters.
const maxNotifyAnswer = 64 << 10

// termNotifier notifies Alertmanagers for one term. The queue ends with the term: an alert that waited in it while
// another node led would contradict what that one has sent.
type termNotifier struct {
	manager *notifier.Manager
	confirm func(context.Context) error
	life    context.Context // of requests to Alertmanagers
	cancel  context.CancelFunc
	ran     chan struct{} // closed when manager has ended
	wg      sync.WaitGroup
}

// beginNotify starts it, knowing the Alertmanagers that the discovery has found so far.
func (r *Ruler) beginNotify(ctx context.Context, p *plan, reg prometheus.Registerer) (*termNotifier, error) {
	n := &termNotifier{confirm: r.confirm, ran: make(chan struct{})}
	// Not ctx: a graceful stop drains the queue after the rules have ended.
	n.life, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	n.manager = notifier.NewManager(&notifier.Options{
		QueueCapacity: r.opts.QueueCapacity, MaxBatchSize: r.opts.MaxBatchSize, DrainOnShutdown: r.opts.Drain,
		Do: n.do, Registerer: reg,
	}, p.conf.GlobalConfig.MetricNameValidationScheme, r.logger.With("component", "notifier"))
	if err := n.manager.ApplyConfig(p.conf); err != nil {
		n.cancel()
		return nil, fmt.Errorf("notifier: %w", err)
	}
	groups, changed := r.found.latest()
	feed := make(chan map[string][]*targetgroup.Group)
	n.wg.Go(func() {
		defer close(n.ran)
		n.manager.Run(feed)
	})
	// The manager takes the second one when it has done the first: no alert comes before it knows where to send it.
	feed <- groups
	feed <- groups
	n.wg.Go(func() {
		for {
			select {
			case <-n.life.Done():
				return
			case <-changed:
			}
			groups, changed = r.found.latest()
			select {
			case <-n.life.Done():
			case feed <- groups:
			}
		}
	})
	return n, nil
}

// checkNotifier tells whether a notifier takes c: a node that does not lead has none yet, and one that refuses a
// configuration, for a file with a certificate that is not there, say, is left without the queues of its Alertmanagers.
func checkNotifier(c *config.Config) error {
	m := notifier.NewManager(&notifier.Options{}, c.GlobalConfig.MetricNameValidationScheme, slog.New(slog.DiscardHandler))
	return m.ApplyConfig(c)
}

// do sends a request to an Alertmanager, if a majority confirms that this node still leads: alerts wait in the queue, and
// a leader that was deposed may not know it yet. The leadership may end while the request is on its way; the next leader
// then sends the same alert with the same start.
func (n *termNotifier) do(ctx context.Context, client *http.Client, req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.life, cancel)()
	if err := n.confirm(ctx); err != nil {
		return nil, err
	}
	resp, err := client.Do(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxNotifyAnswer))
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// end stops it. While the term lasts, what is queued is sent if the options say so.
func (n *termNotifier) end(term context.Context) {
	if term.Err() != nil {
		n.cancel()
	}
	defer context.AfterFunc(term, n.cancel)()
	defer time.AfterFunc(drainTimeout, n.cancel).Stop()
	n.manager.Stop()
	<-n.ran
	n.cancel()
	n.wg.Wait()
}
