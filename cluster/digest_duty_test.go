// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

// logged is a log that a test reads.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// One value of one node changes, with all checksums right: the duty finds it with nobody asking, and everybody is told.
func TestDigestDutyFindsOneChangedValue(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, func(c *cluster.Config) { c.DigestInterval = 200 * time.Millisecond })
	nodes[0].writeMany(0, 40)
	b := nodes[0].fsm.NewBatch() // so much later that the others' partition counts as complete
	b.Series(nil, labels.FromStrings("__name__", "late"))
	b.Float(4*time.Hour.Milliseconds(), 1)
	_, err := b.Commit(t.Context(), nodes[0])
	require.NoError(t, err)
	b.Release()
	leader, rest := leaderOf(t, nodes)
	bad := rest[0]
	for _, n := range nodes {
		n.eventually("all are equal", func() bool {
			s := n.statusOf(n.ID())
			return s != nil && s.Result == cluster.DigestEqual
		})
		require.Zero(t, n.metric("deucalion_cluster_digest_mismatch"))
	}
	require.NoError(t, bad.Snapshot(t.Context()))
	bad.stop()
	changeOneValue(t, bad.cfg.Dir, "17", 17)
	log := &logged{}
	bad.cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelError}))
	bad.start()
	bad.waitReady()

	for _, n := range nodes {
		n.eventually("it has heard of the difference", func() bool {
			return n.metric("deucalion_cluster_digest_mismatch") == 1
		})
		n.eventually("the node that differs is marked", func() bool {
			s := leader.statusOf(n.ID())
			return s != nil && s.Result == cluster.DigestMismatch && s.Differing == (n == bad)
		})
	}
	bad.eventually("it says so itself", func() bool { return bytes.Contains([]byte(log.String()), []byte("differ")) })
}
