// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
)

// processOptions are the flags of the Go runtime, as in Prometheus.
type processOptions struct {
	maxProcs         bool
	memLimit         bool
	memLimitRatio    float64
	memLimitInterval model.Duration
}

func (p *processOptions) flags(app *kingpin.Application) {
	app.Flag("auto-gomaxprocs", "Automatically set GOMAXPROCS to match Linux container CPU quota").
		Default("true").BoolVar(&p.maxProcs)
	app.Flag("auto-gomemlimit", "Automatically set GOMEMLIMIT to match Linux container or system memory limit").
		Default("true").BoolVar(&p.memLimit)
	app.Flag("auto-gomemlimit.ratio", "The ratio of reserved GOMEMLIMIT memory to the detected maximum container or system memory").
		Default("0.9").FloatVar(&p.memLimitRatio)
	app.Flag("auto-gomemlimit.refresh-interval", "Interval at which to re-detect the container or system memory limit and update GOMEMLIMIT accordingly. Set to 0 to detect the limit only once at startup. Only used when --auto-gomemlimit is set.").
		Default("0s").SetValue(&p.memLimitInterval)
}

// apply sets the limits of this process. Go itself follows a container's CPU quota, so only the opposite needs doing.
func (p *processOptions) apply(logger *slog.Logger) {
	if !p.maxProcs && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.NumCPU())
	}
	if !p.memLimit {
		return
	}
	_, err := memlimit.SetGoMemLimitWithOpts(
		memlimit.WithRatio(p.memLimitRatio),
		memlimit.WithRefreshInterval(time.Duration(p.memLimitInterval)),
		memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)),
		memlimit.WithLogger(logger.With("component", "automemlimit")),
	)
	if err != nil {
		logger.Warn("GOMEMLIMIT was not set automatically", "err", err)
	}
}
