// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

// BenchmarkSnapshotHold is how long FSM.Snapshot holds up the applier with 100k
// series and 20 blocks.
func BenchmarkSnapshotHold(b *testing.B) {
	f, l := alone(b)
	write := func(t int64) {
		commit(b, f, l, func(x *Batch) {
			for i := range 100_000 {
				x.Series(nil, labels.FromStrings(model.MetricNameLabel, "m", "i", fmt.Sprint(i), "job", "bench", "instance", fmt.Sprint("host", i%100)))
				x.Float(t, float64(i))
			}
		})
	}
	for i := range 20 {
		write(base + int64(i)*600_000)
		require.NoError(b, f.store.Freeze())
		_, err := f.store.FlushOne()
		require.NoError(b, err)
	}
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		write(base + int64(30+i)*600_000)
		b.StartTimer()
		s, err := f.Snapshot()
		b.StopTimer()
		require.NoError(b, err)
		s.Release()
		b.StartTimer()
	}
}
