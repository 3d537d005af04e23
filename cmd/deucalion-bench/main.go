// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Command deucalion-bench loads servers by remote write and tells what that costs
// them; see package test/bench.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"

	"github.com/deucaliondb/deucalion/test/bench/cli"
)

func main() {
	name := filepath.Base(os.Args[0])
	app := kingpin.New(name, "Load generator for Deucalion and Prometheus.").UsageWriter(os.Stdout)
	app.Version(version.Print(name))
	app.HelpFlag.Short('h')
	commands := cli.Register(app)
	command := commands[kingpin.MustParse(app.Parse(os.Args[1:]))]

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}
