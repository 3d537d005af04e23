// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/util/logging"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// Exit codes, as Prometheus has them.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// run is the whole program. It returns the exit code when ctx ends, a signal arrives or the node cannot go on.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	setVersion()
	if len(args) > 0 {
		if c, ok := command(args[0]); ok {
			return c(ctx, args[1:], stdout, stderr)
		}
	}
	opts, code, err := parseFlags(args, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "Error parsing command line arguments: %s\n", err)
		return exitUsage
	}
	if code != nil { // --help or --version
		return *code
	}
	opts.log.Writer = stderr
	logger := promslog.New(&opts.log)
	slog.SetDefault(logger) // net/http's HTTP/2 writes to the log package, which goes there now
	klog.SetSlogLogger(logger.With("component", "k8s_client_runtime"))
	rest.SetDefaultWarningHandlerWithContext(logging.NewDedupDeprecationWarningLogger()) // each once, not with each request
	if err := opts.setFeatures(logger); err != nil {
		fmt.Fprintf(stderr, "Error parsing feature list: %s\n", err)
		return exitFailed
	}
	opts.ignored.warn(logger)
	conf, err := loadConfig(opts, opts.features.parser(), logger)
	if err != nil {
		logger.Error(fmt.Sprintf("Error loading config (--config.file=%s)", opts.configFile), "err", err)
		return exitUsage
	}
	opts.process.apply(logger)
	if err := conf.applyRuntime(opts); err != nil {
		logger.Error("Error applying the runtime section of the config", "err", err)
		return exitUsage
	}
	logger.Info("Starting Deucalion", "version", version.Info(), "build_context", version.BuildContext())
	if err := serve(ctx, opts, conf, logger); err != nil {
		logger.Error("Deucalion ended", "err", err)
		return exitFailed
	}
	logger.Info("See you next time!")
	return exitOK
}

// serve runs a node until it is told to stop, and stops it. A second signal cuts the stopping short.
func serve(ctx context.Context, opts *options, conf *configuration, logger *slog.Logger) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	started := make(chan startResult, 1)
	go func() {
		n, err := startNode(opts, conf, logger)
		started <- startResult{n, err}
	}()
	var n *node
	select {
	case s := <-started:
		if s.err != nil {
			return s.err
		}
		n = s.node
	case sig := <-signals:
		// A start may read all data first, and leaves nothing on the disk that a crash would not.
		logger.Info("Received a signal during the start, stopping at once", "signal", sig.String())
		return nil
	}
	n.watchConfig(hangups)
	signalled, err := n.awaitEnd(ctx, signals)
	if err != nil && !errors.Is(err, errServe) {
		// Nothing is flushed or handed over: the disk or the state cannot be trusted, and every second counts for the
		// cluster, which cannot elect another leader while a broken one sends heartbeats.
		return fmt.Errorf("this node cannot go on: %w", err)
	}
	n.notices.AddNotification(shuttingDown)
	stopped := make(chan error, 1)
	go func() { stopped <- n.stop() }()
	for {
		select {
		case e := <-stopped:
			return errors.Join(err, e)
		case err := <-n.fatal:
			return fmt.Errorf("while stopping: %w", err)
		case sig := <-signals:
			if signalled {
				return fmt.Errorf("stopped at once by a second signal (%s)", sig)
			}
			signalled = true // whoever sends one does not know that the stop is under way
			logger.Info("Received a signal while stopping; a second one stops at once", "signal", sig.String())
		}
	}
}

type startResult struct {
	node *node
	err  error
}

// errServe says that no more requests are served.
var errServe = errors.New("serve HTTP")

// awaitEnd waits until there is a reason to stop, and tells whether it is a signal. An error other than errServe leaves
// no time for a graceful stop.
func (n *node) awaitEnd(ctx context.Context, signals <-chan os.Signal) (signalled bool, err error) {
	select {
	case <-n.quit:
		n.logger.Info("Received termination request via web service, stopping gracefully")
	case sig := <-signals:
		n.logger.Info("Received a signal, stopping gracefully; a second one stops at once", "signal", sig.String())
		return true, nil
	case <-ctx.Done():
		n.logger.Info("Stopping gracefully")
	case err := <-n.fatal:
		return false, err
	case err := <-n.served:
		return false, fmt.Errorf("%w: %w", errServe, err)
	}
	return false, nil
}
