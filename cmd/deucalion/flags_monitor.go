// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/notifier"
)

// monitoring are the flags of scraping, rules and notifications, with Prometheus's names and defaults.
type monitoring struct {
	shard             string
	adjustTimestamps  bool
	timestampToler    time.Duration
	discoveryInterval model.Duration

	outageTolerance model.Duration
	forGracePeriod  model.Duration
	resendDelay     model.Duration
	concurrentEvals int64

	queueCapacity int
	batchSize     int
	drain         bool

	flushDeadline model.Duration
}

func (m *monitoring) flags(app *kingpin.Application) {
	app.Flag("scrape.shard", "Which nodes scrape: spread (each target by one of all live nodes) or leader.").
		Default("spread").EnumVar(&m.shard, "spread", "leader")
	app.Flag("scrape.adjust-timestamps", "Adjust scrape timestamps by up to `scrape.timestamp-tolerance` to align them to the intended schedule.").
		Hidden().Default("true").BoolVar(&m.adjustTimestamps)
	app.Flag("scrape.timestamp-tolerance", "Timestamp tolerance.").
		Hidden().Default("2ms").DurationVar(&m.timestampToler)
	app.Flag("scrape.discovery-reload-interval", "Interval used by scrape manager to throttle target groups updates.").
		Hidden().Default("5s").SetValue(&m.discoveryInterval)
	app.Flag("rules.alert.for-outage-tolerance", "Max time to tolerate prometheus outage for restoring \"for\" state of alert.").
		Default("1h").SetValue(&m.outageTolerance)
	app.Flag("rules.alert.for-grace-period", "Minimum duration between alert and restored \"for\" state. This is maintained only for alerts with configured \"for\" time greater than grace period.").
		Default("10m").SetValue(&m.forGracePeriod)
	app.Flag("rules.alert.resend-delay", "Minimum amount of time to wait before resending an alert to Alertmanager.").
		Default("1m").SetValue(&m.resendDelay)
	app.Flag("rules.max-concurrent-evals", "Global concurrency limit for independent rules that can run concurrently. When set, \"query.max-concurrency\" may need to be adjusted accordingly.").
		Default("4").Int64Var(&m.concurrentEvals)
	app.Flag("alertmanager.notification-queue-capacity", "The capacity of the queue for pending Alertmanager notifications.").
		Default("10000").IntVar(&m.queueCapacity)
	app.Flag("alertmanager.notification-batch-size", "The maximum number of notifications per batch to send to the Alertmanager.").
		Default(strconv.Itoa(notifier.DefaultMaxBatchSize)).IntVar(&m.batchSize)
	app.Flag("alertmanager.drain-notification-queue-on-shutdown", "Send any outstanding Alertmanager notifications when shutting down. If false, any outstanding Alertmanager notifications will be dropped when shutting down.").
		Default("true").BoolVar(&m.drain)
	app.Flag("storage.remote.flush-deadline", "How long to wait flushing sample on shutdown or config reload.").
		Default("1m").SetValue(&m.flushDeadline)
}
