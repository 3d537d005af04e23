// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

// A follower is applying a delete that others have acknowledged, and gets a
// write of the deleted sample: whatever moment of the delete the batch meets,
// the sample must be there in the end.
func TestRetryWhileADeleteIsApplied(t *testing.T) {
	leader, l := alone(t)
	follower := newFSM(t, "")
	for i := range 50 {
		x := name(fmt.Sprint("x", i))
		put(t, leader, l, x, base, 1)
		l.catchUp(follower)
		erased := follower.erased.Load()
		l.apply(t, EncodeDelete(Delete{ID: x.String(), Selectors: [][]*labels.Matcher{equals(model.MetricNameLabel, x.Get(model.MetricNameLabel))}, Mint: base, Maxt: base}))
		setWindow(t, l, time.Hour)
		var wg sync.WaitGroup
		wg.Go(func() { l.catchUp(follower) })
		b := follower.NewBatch()
		for end := time.Now().Add(deadline); follower.erased.Load() == erased && time.Now().Before(end); {
			runtime.Gosched() // until the applier is at the delete
		}
		b.Series(nil, x)
		b.Float(base, 1)
		wg.Wait()
		out, err := b.Commit(t.Context(), l)
		require.NoError(t, err)
		require.Equal(t, 1, out.Floats)
		require.Equal(t, "0=1", floatsOf(t, leader, x), "round %d: the write is acknowledged", i)
		b.Release()
	}
}
