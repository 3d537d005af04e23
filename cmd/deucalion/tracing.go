// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tracing"
	"github.com/prometheus/prometheus/util/logging"
)

// startTracing runs Prometheus's tracing by the configuration's section of that name.
func (n *node) startTracing() {
	m := tracing.NewManager(n.logger.With("component", "tracing"))
	n.config.add("tracing", m.ApplyConfig)
	var wg sync.WaitGroup
	wg.Go(m.Run)
	n.onStop(0, func(context.Context) error { // the library has 5 s for it
		m.Stop()
		wg.Wait()
		return nil
	})
}

// setQueryLog makes engine log its queries to a file, or to none.
func setQueryLog(engine *promql.Engine, file string) error {
	if file == "" {
		engine.SetQueryLogger(nil)
		return nil
	}
	l, err := logging.NewJSONFileLogger(file)
	if err != nil {
		return err
	}
	engine.SetQueryLogger(l)
	return nil
}
