// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/deucaliondb/deucalion/monitor"
)

// startShipping sends what is committed to the remote_write stores of the configuration file. It comes after scraping and
// rules, so that it ends before them; what they still write is sent by the next leader, from the position noted here.
func (n *node) startShipping(o *options) error {
	s, err := monitor.NewShipper(monitor.ShipperOptions{
		Log: n.cluster, FSM: n.fsm, Dir: o.dataDir,
		FlushDeadline:     time.Duration(o.monitoring.flushDeadline),
		TypeAndUnitLabels: o.features.has("type-and-unit-labels"),
		Logger:            n.logger.With("component", "remote"),
		Registerer:        n.registry,
	})
	if err != nil {
		return err
	}
	n.config.add("remote_storage", s.ApplyConfig)
	n.onStop(shipTimeout, func(ctx context.Context) error {
		if err := s.Stop(ctx); err != nil {
			n.logger.Warn("Sending to remote stores was cut off", "err", err)
		}
		return nil
	})
	return nil
}

// startRemoteRead makes the remote_read stores of the configuration file a source of queries.
func (n *node) startRemoteRead() {
	n.reader = monitor.NewRemoteReader(n.fsm, n.logger.With("component", "remote"))
	n.config.add("remote_read", n.reader.ApplyConfig)
	n.closers = append(n.closers, n.reader.Close)
}
