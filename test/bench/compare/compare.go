// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package compare runs the load of package bench against three nodes of Deucalion and
// against a stock Prometheus, in turns on the same machine with fresh data directories
// each time, and sets what they cost side by side. Machines are noisy: trust the
// ratios of one round, and of those the median.
package compare

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/deucaliondb/deucalion/test/bench"
)

// readyTimeout bounds the wait for servers to become ready.
const readyTimeout = 2 * time.Minute

// Options say what is compared.
type Options struct {
	Bin    string        // the deucalion binary
	Stock  string        // the prometheus binary
	Dir    string        // where data directories are made; they are removed after each run
	Rounds int           // how often each scenario runs
	Flags  []string      // for each node, beyond those which the cluster needs
	Load   bench.Options // URLs are filled in

	// Profiles is a directory for CPU profiles of all processes, those of the last round; "" makes none, for
	// profiling has a cost of its own.
	Profiles string

	Out io.Writer // gets progress and the table
}

// roles of processes in the table.
const (
	leaderReceives   = "leader, receiving"
	followerReceives = "follower, receiving"
	leaderOnly       = "leader, not receiving"
	followerOnly     = "follower, not receiving"
	stockReceives    = "stock"
)

// row is the cost of one process in one run.
type row struct {
	round    int
	scenario string
	role     string
	bench.Cost
}

// run is one scenario of one round.
type run struct {
	round    int
	scenario string
	report   *bench.Report
	rows     []row
	log      []float64 // Raft log bytes per sample, of each node
	hold     float64   // no snapshot has held up applying longer, in seconds; 0 without a snapshot
	note     string
}

// scenario is a way to run the load once in an empty directory.
type scenario struct {
	name string
	do   func(ctx context.Context, o Options, dir string) (*run, error)
}

// Run does all rounds and prints the table.
func Run(ctx context.Context, o Options) error {
	scenarios := []scenario{
		{"load on the leader", func(ctx context.Context, o Options, dir string) (*run, error) {
			return runCluster(ctx, o, dir, true)
		}},
		{"stock", runStock},
		{"load on a follower", func(ctx context.Context, o Options, dir string) (*run, error) {
			return runCluster(ctx, o, dir, false)
		}},
	}
	var runs []*run
	for round := range o.Rounds {
		for i := range scenarios {
			// Each round begins with another scenario, so that none always comes first.
			s := scenarios[(i+round)%len(scenarios)]
			r, err := once(ctx, o, s, round+1)
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", s.name, round+1, err)
			}
			runs = append(runs, r)
			fmt.Fprintf(o.Out, "round %d, %s %s\n%s", r.round, r.scenario, r.note, r.report)
			costs := make([]bench.Cost, len(r.rows))
			for i, row := range r.rows {
				costs[i] = row.Cost
				costs[i].Name = row.role
			}
			fmt.Fprintln(o.Out, bench.FormatCosts(costs))
		}
	}
	printTable(o.Out, runs)
	return nil
}

func once(ctx context.Context, o Options, s scenario, round int) (*run, error) {
	dir := filepath.Join(o.Dir, fmt.Sprintf("round-%d", round))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r, err := s.do(ctx, o, dir)
	if err != nil {
		return nil, err
	}
	r.round, r.scenario = round, s.name
	for i := range r.rows {
		r.rows[i].round = round
	}
	return r, nil
}
