// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kingpin/v2"
	"github.com/alecthomas/units"

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

// catchUp measures what nodes fetch that the log alone does not bring back.
func catchUp(app Commander) (*kingpin.CmdClause, Command) {
	cmd := app.Command("catchup", "Fill a cluster and measure how a node comes back that has missed an hour and the log since, and one that has lost its disk.")
	o := compare.CatchUpOptions{Load: bench.Defaults()}
	o.Load.Batch, o.Load.Random = 5000, true
	cmd.Flag("size", "Bytes of blocks of each node to begin with.").Default("2GiB").BytesVar((*units.Base2Bytes)(&o.Size))
	cmd.Flag("protocol", "Version of remote write: 1 or 2.").Default(fmt.Sprint(o.Load.Protocol)).IntVar(&o.Load.Protocol)
	cmd.Flag("batch", "Samples in one request.").Default(fmt.Sprint(o.Load.Batch)).IntVar(&o.Load.Batch)
	cmd.Flag("senders", "Requests under way at the same time.").Default(fmt.Sprint(o.Load.Senders)).IntVar(&o.Load.Senders)
	w := whereFlags(cmd)
	return cmd, func(ctx context.Context, out io.Writer) error {
		remove, err := w.prepare()
		if err != nil {
			return err
		}
		defer remove()
		o.Bin, o.Dir, o.Flags, o.Out = w.bin, w.dir, w.flags, out
		return compare.CatchUp(ctx, o)
	}
}
