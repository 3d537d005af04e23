// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/util/notifications"
	"github.com/stretchr/testify/require"
)

// What hangs when the node stops takes no time from the rest, and its error is told.
func TestStoppersHaveTheirOwnTime(t *testing.T) {
	var n node
	var order []string
	n.onStop(time.Minute, func(ctx context.Context) error {
		order = append(order, "first")
		return ctx.Err()
	})
	n.onStop(time.Millisecond, func(ctx context.Context) error {
		order = append(order, "second")
		<-ctx.Done()
		return errors.New("hung")
	})
	require.EqualError(t, n.stopDuties(), "hung")
	require.Equal(t, []string{"second", "first"}, order)
}

// A reload that is under way waits for an evaluation, say, which only the stop cuts short.
func TestStopDuringReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	o, err := parse(t, "--config.file="+file)
	require.NoError(t, err)
	logger := slog.New(slog.DiscardHandler)
	registry := prometheus.NewRegistry()
	n := &node{logger: logger, config: newReloader(o, o.features.parser(), &configuration{}, notifications.NewNotifications(1, registry), logger, registry)}
	reloading, cut := make(chan struct{}), make(chan struct{})
	n.config.add("slow", func(*config.Config) error {
		close(reloading)
		<-cut
		return nil
	})
	n.onStop(time.Minute, func(context.Context) error {
		close(cut)
		return nil
	})
	hangups := make(chan os.Signal, 1)
	n.watchConfig(hangups)
	hangups <- syscall.SIGHUP
	<-reloading
	stopped := make(chan error, 1)
	go func() { stopped <- n.stop() }()
	select {
	case err := <-stopped:
		require.NoError(t, err)
	case <-time.After(30 * time.Second):
		t.Fatal("the stop waits for the reload")
	}
}
