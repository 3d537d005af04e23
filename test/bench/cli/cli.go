// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line of the load generator, in a form that any kingpin
// application can take in: the program deucalion-bench, and deucalion itself.
package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/deucaliondb/deucalion/test/bench"
)

// Command runs one subcommand; ctx ends at an interrupt.
type Command func(ctx context.Context, out io.Writer) error

// Commander is a kingpin application or command that takes subcommands.
type Commander interface {
	Command(name, help string) *kingpin.CmdClause
}

// Register adds the subcommands to app and returns them by the full name that kingpin's Parse gives.
func Register(app Commander) map[string]Command {
	all := map[string]Command{}
	for _, add := range []func(Commander) (*kingpin.CmdClause, Command){load, compareCommand, restart, catchUp} {
		clause, command := add(app)
		all[clause.FullCommand()] = command
	}
	return all
}

// loadFlags adds the flags that describe a load.
func loadFlags(cmd *kingpin.CmdClause, o *bench.Options) {
	cmd.Flag("protocol", "Version of remote write: 1 or 2.").Default(fmt.Sprint(o.Protocol)).IntVar(&o.Protocol)
	cmd.Flag("series", "Number of series.").Default(fmt.Sprint(o.Series)).IntVar(&o.Series)
	cmd.Flag("labels", "Labels of each series, its name included.").Default(fmt.Sprint(o.Labels)).IntVar(&o.Labels)
	cmd.Flag("batch", "Samples in one request.").Default(fmt.Sprint(o.Batch)).IntVar(&o.Batch)
	cmd.Flag("senders", "Requests under way at the same time.").Default(fmt.Sprint(o.Senders)).IntVar(&o.Senders)
	cmd.Flag("rate", "Samples per second; 0 means as fast as they are acknowledged.").Default("0").Float64Var(&o.Rate)
	cmd.Flag("duration", "Length of the load; 0s means until --rounds is reached.").Default(o.Duration.String()).DurationVar(&o.Duration)
	cmd.Flag("rounds", "Samples of each series after which the load ends; 0 means after --duration.").Default(fmt.Sprint(o.Rounds)).IntVar(&o.Rounds)
	cmd.Flag("interval", "Time between the samples of a series.").Default(o.Interval.String()).DurationVar(&o.Interval)
	cmd.Flag("random", "Values that do not compress: eight bytes a sample.").Default(fmt.Sprint(o.Random)).BoolVar(&o.Random)
	cmd.Flag("seed", "Seed of the values.").Default(fmt.Sprint(o.Seed)).Uint64Var(&o.Seed)
}

// load writes to servers that run already.
func load(app Commander) (*kingpin.CmdClause, Command) {
	cmd := app.Command("load", "Write to running servers by remote write and tell what it cost them.")
	o := bench.Defaults()
	loadFlags(cmd, &o)
	cmd.Flag("url", "Remote-write endpoint; repeatable, requests take turns.").Default("http://127.0.0.1:9090/api/v1/write").StringsVar(&o.URLs)
	age := cmd.Flag("age", "How long ago the first timestamp is; each run must begin where the last one ended, or later.").Default("168h").Duration()
	pids := cmd.Flag("pid", "Server process to account for, as name=PID; repeatable.").StringMap()
	dirs := cmd.Flag("dir", "Directory to measure, as name=PATH; repeatable.").StringMap()
	return cmd, func(ctx context.Context, out io.Writer) error {
		a := bench.Account{PIDs: map[string]int{}, Dirs: *dirs}
		for _, name := range slices.Sorted(maps.Keys(*pids)) {
			pid, err := strconv.Atoi((*pids)[name])
			if err != nil {
				return fmt.Errorf("process id of %s: %w", name, err)
			}
			a.PIDs[name] = pid
		}
		o.Start = time.Now().Add(-*age)
		return runLoad(ctx, out, o, &a)
	}
}

func runLoad(ctx context.Context, out io.Writer, o bench.Options, a *bench.Account) error {
	if err := a.Open(); err != nil {
		return err
	}
	report, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprint(out, report)
	costs, err := a.Close(report.Samples)
	if err != nil {
		return err
	}
	if len(costs) > 0 {
		fmt.Fprint(out, bench.FormatCosts(costs))
	}
	return nil
}
