// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/deucaliondb/deucalion/fsm"
)

const (
	dutiesEvery = 30 * time.Second
	// cutoffStep is the least by which the cutoff moves: each move is an entry.
	cutoffStep = time.Minute
	// cutoffRepeat is how often a cutoff entry is proposed at least: at these entries the state machine drops the ids
	// of idle series, on all nodes alike.
	cutoffRepeat = 10 * time.Minute
)

// doDuties runs what exactly one node does, on the leader, until ctx ends.
func (n *Node) doDuties(ctx context.Context) {
	lastCutoff := time.Now() // a new leader does not know; too seldom by one interval does no harm
	run := func() {
		n.duty(ctx, "settings", n.keepSettings)
		n.duty(ctx, "retention", func(ctx context.Context) error { return n.moveCutoff(ctx, &lastCutoff) })
	}
	run()
	tick(ctx, dutiesEvery, run)
}

func (n *Node) duty(ctx context.Context, name string, fn func(context.Context) error) {
	if err := fn(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errNotLeader) {
		n.metrics.dutyFailures.WithLabelValues(name).Inc()
		n.logger.Warn("Leader duty failed, trying again", "duty", name, "err", err)
	}
}

// wantedSettings are the configuration file's, with what is not the file's to decide.
func (n *Node) wantedSettings() fsm.Settings {
	have := n.fsm.Settings()
	want := have
	if n.cfg.Settings != nil {
		want = n.cfg.Settings()
	}
	want.ClusterID = have.ClusterID
	want.MinVersion = max(want.MinVersion, have.MinVersion, n.commonLevel())
	want.OutOfOrderWindow = want.OutOfOrderWindow.Truncate(time.Millisecond) // as it will come back
	return want
}

func (n *Node) keepSettings(ctx context.Context) error {
	want := n.wantedSettings()
	if want == n.fsm.Settings() {
		return nil
	}
	n.logger.Info("Proposing the settings of this node's configuration file and the level that all members know", "settings", fmt.Sprintf("%+v", want))
	res, err := n.leaderPropose(ctx, fsm.EncodeSettings(want))
	if err == nil && res.Err != "" {
		err = errors.New(res.Err)
	}
	return err
}

// moveCutoff proposes the retention cutoff.
func (n *Node) moveCutoff(ctx context.Context, last *time.Time) error {
	have := n.fsm.Cutoff()
	want := have
	var age time.Duration
	var size int64
	if n.cfg.Retention != nil {
		age, size = n.cfg.Retention()
	}
	if maxT := n.fsm.MaxTime(); age > 0 && maxT != math.MinInt64 {
		want = max(want, maxT-age.Milliseconds())
	}
	if c, ok := n.sizeCutoff(ctx, size); ok {
		want = max(want, c)
	}
	moved := want > have && (have == math.MinInt64 || want-have >= cutoffStep.Milliseconds())
	if !moved {
		want = have
		if time.Since(*last) < cutoffRepeat || n.fsm.MaxTime() == math.MinInt64 {
			return nil
		}
	}
	_, err := n.leaderPropose(ctx, fsm.EncodeCutoff(want))
	if err == nil {
		*last = time.Now()
	}
	return err
}

// sizeCutoff brings the largest node down to limit bytes. Block layouts differ between nodes, and only this node's
// are at hand: the limit is scaled by how much larger the largest is.
func (n *Node) sizeCutoff(ctx context.Context, limit int64) (int64, bool) {
	if limit <= 0 {
		return 0, false
	}
	own := n.fsm.BlocksSize()
	largest := own
	for _, s := range n.Nodes(ctx) {
		largest = max(largest, s.BlocksBytes)
	}
	if largest <= limit || own == 0 {
		return 0, false
	}
	return n.fsm.CutoffForSize(int64(float64(limit) * float64(own) / float64(largest)))
}
