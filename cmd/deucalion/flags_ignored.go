// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"

	"github.com/alecthomas/kingpin/v2"
	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"
)

// ignored are flags of Prometheus that are accepted, so that a command line need not be changed, and have no effect.
// /api/v1/status/flags shows them, as Prometheus shows them: a Thanos sidecar reads some.
type ignored struct {
	set []*ignoredFlag
}

type ignoredFlag struct {
	name, why string
	byUser    bool
}

// flags adds them. Values are checked as in Prometheus.
func (g *ignored) flags(app *kingpin.Application) {
	const (
		noWAL    = "there is no write-ahead log beside Raft's"
		ownTiers = "memtables are flushed and blocks merged by rules of their own"
	)
	flag := func(name, why string) *kingpin.FlagClause {
		f := &ignoredFlag{name: name, why: why}
		g.set = append(g.set, f)
		return app.Flag(name, "Accepted for compatibility, without effect: "+why+".").IsSetByUser(&f.byUser)
	}
	duration := func(f *kingpin.FlagClause) { f.SetValue(new(model.Duration)) }
	bytes := func(f *kingpin.FlagClause) { f.BytesVar(new(units.Base2Bytes)) }

	duration(flag("storage.tsdb.min-block-duration", ownTiers).Hidden().Default("2h"))
	duration(flag("storage.tsdb.max-block-duration", ownTiers).Hidden().Default("31d"))
	bytes(flag("storage.tsdb.max-block-chunk-segment-size", ownTiers).Hidden().Default("512MB"))
	bytes(flag("storage.tsdb.wal-segment-size", noWAL).Hidden().Default("128MB"))
	flag("storage.tsdb.wal-compression", noWAL).Hidden().Default("true").Bool()
	flag("storage.tsdb.wal-compression-type", noWAL).Hidden().Default("snappy").Enum("snappy", "zstd")
	flag("storage.tsdb.no-lockfile", "two processes on one data directory would destroy it").Default("false").Bool()
	flag("storage.tsdb.allow-overlapping-compaction", ownTiers).Hidden().Default("true").Bool()
	flag("storage.tsdb.head-chunks-write-queue-size", "memtables are written by the flusher alone").Default("0").Int()
	flag("storage.tsdb.samples-per-chunk", ownTiers).Hidden().Default("120").Int()
	flag("storage.tsdb.delayed-compaction.max-percent", ownTiers).Hidden().Default("10").Int()
	flag("storage.tsdb.delay-compact-file.path", "blocks are merged on each node alone and should not be uploaded from all").Default("").String()
	duration(flag("storage.tsdb.block-reload-interval", "blocks come in through the log only").Hidden().Default("1m"))
}

// warn tells the operator which of them the command line has.
func (g *ignored) warn(logger *slog.Logger) {
	for _, f := range g.set {
		if f.byUser {
			logger.Warn("This flag has no effect", "flag", "--"+f.name, "reason", f.why)
		}
	}
}
