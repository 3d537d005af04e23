// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"sync"
	"testing"

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
		l.apply(t, EncodeDelete(Delete{ID: x.String(), Selectors: [][]*labels.Matcher{equals(labels.MetricName, x.Get(labels.MetricName))}, Mint: base, Maxt: base}))
		setWindow(t, l, 1e9)
		var wg sync.WaitGroup
		wg.Go(func() { l.catchUp(follower) })
		b := follower.NewBatch()
		for i := 0; follower.erased.Load() == erased && i < 20_000; i++ { // usually within the delete
			_ = i
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
