// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"io"
	"os"

	"github.com/alecthomas/kingpin/v2"

	"github.com/deucaliondb/deucalion/test/bench"
	"github.com/deucaliondb/deucalion/test/bench/compare"
)

// where holds the flags of commands that run servers of their own.
type where struct {
	bin, dir string
	flags    []string
}

func whereFlags(cmd *kingpin.CmdClause) *where {
	w := &where{}
	cmd.Flag("bin", "The deucalion binary.").Default("bin/deucalion").ExistingFileVar(&w.bin)
	cmd.Flag("work-dir", "Where data directories are made; by default a temporary one, removed at the end.").StringVar(&w.dir)
	cmd.Flag("node-flag", "Flag for each node; repeatable.").StringsVar(&w.flags)
	return w
}

// prepare makes the directory and returns what removes it again.
func (w *where) prepare() (func(), error) {
	if w.dir != "" {
		return func() {}, os.MkdirAll(w.dir, 0o755)
	}
	dir, err := os.MkdirTemp("", "deucalion-bench-")
	if err != nil {
		return nil, err
	}
	w.dir = dir
	return func() { os.RemoveAll(dir) }, nil
}

// compareCommand sets three nodes against a stock Prometheus.
func compareCommand(app Commander) (*kingpin.CmdClause, Command) {
	cmd := app.Command("compare", "Run the same load on three nodes and on a stock Prometheus, in turns, and compare the costs.")
	o := bench.Defaults()
	loadFlags(cmd, &o)
	w := whereFlags(cmd)
	stock := cmd.Flag("stock", "The stock prometheus binary.").Default("prometheus").String()
	profiles := cmd.Flag("profile-dir", "Directory for CPU profiles of all processes.").String()
	times := cmd.Flag("repeat", "How often each is run.").Default("3").Int()
	return cmd, func(ctx context.Context, out io.Writer) error {
		remove, err := w.prepare()
		if err != nil {
			return err
		}
		defer remove()
		return compare.Run(ctx, compare.Options{
			Bin: w.bin, Stock: *stock, Dir: w.dir, Rounds: *times, Flags: w.flags, Load: o, Profiles: *profiles, Out: out,
		})
	}
}

// restart measures how soon nodes are back.
func restart(app Commander) (*kingpin.CmdClause, Command) {
	cmd := app.Command("restart", "Fill a cluster and measure the restarts of a node: after kill -9 and after a graceful stop.")
	o := bench.Defaults()
	o.Series, o.Rounds, o.Duration = 100_000, 240, 0
	loadFlags(cmd, &o)
	w := whereFlags(cmd)
	nodes := cmd.Flag("nodes", "Size of the cluster.").Default("3").Int()
	return cmd, func(ctx context.Context, out io.Writer) error {
		remove, err := w.prepare()
		if err != nil {
			return err
		}
		defer remove()
		return compare.Restart(ctx, compare.RestartOptions{
			Bin: w.bin, Dir: w.dir, Nodes: *nodes, Flags: w.flags, Load: o, Out: out,
		})
	}
}
