// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRefusedSamplesMakeNoSeries: nothing must go into the log for a series of which no sample was taken.
func TestRefusedSamplesMakeNoSeries(t *testing.T) {
	r := newReceiver(t, nil)
	before, _ := r.FSM.Applied()
	require.Equal(t, 400, r.v1(t, series("ghost", at(11*60_000, 1))).code)
	after, _ := r.FSM.Applied()
	require.Equal(t, before, after)
	require.Equal(t, 400, r.v1(t, series("ghost", at(11*60_000, 1)), series("real", at(0, 1))).code)
	stats, err := r.FSM.Stats("__name__", 10)
	require.NoError(t, err)
	require.EqualValues(t, 1, stats.NumSeries)
}
