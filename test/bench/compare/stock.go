// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/deucaliondb/deucalion/test/bench"
	"github.com/deucaliondb/deucalion/test/local"
)

// runStock runs the load against a stock Prometheus.
func runStock(ctx context.Context, o Options, dir string) (*run, error) {
	s, err := local.NewStock(local.StockOptions{
		Bin: o.Stock, Dir: filepath.Join(dir, "stock"), Flags: []string{"--web.enable-remote-write-receiver"},
	})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.Start(); err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := s.WaitReady(wait); err != nil {
		return nil, err
	}
	return measure(ctx, o, s.Server, map[string]*local.Server{stockReceives: s.Server})
}

// measure runs the load against target and accounts for servers, given by role.
func measure(ctx context.Context, o Options, target *local.Server, servers map[string]*local.Server) (*run, error) {
	load := o.Load
	load.URLs = []string{"http://" + target.Addr + "/api/v1/write"}
	a := bench.Account{PIDs: map[string]int{}, Dirs: map[string]string{}}
	for role, s := range servers {
		a.PIDs[role], a.Dirs[role] = s.Process().PID(), s.Dir
	}
	if err := a.Open(); err != nil {
		return nil, err
	}
	wait := func() error { return nil }
	if o.Profiles != "" {
		wait = profiles(ctx, o.Profiles, load.Duration*9/10, servers)
	}
	report, err := bench.Run(ctx, load)
	if err := errors.Join(err, wait()); err != nil {
		return nil, err
	}
	costs, err := a.Close(report.Samples)
	if err != nil {
		return nil, err
	}
	r := &run{report: report}
	for _, c := range costs {
		r.rows = append(r.rows, row{role: c.Name, Cost: c})
	}
	return r, nil
}
