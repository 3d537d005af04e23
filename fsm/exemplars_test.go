// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// A typing error in the configuration of one node must not stop all of them for as long as it is in the log.
func TestTooManyExemplars(t *testing.T) {
	if testing.Short() {
		t.Skip("reserves hundreds of megabytes")
	}
	f, l := alone(t)
	for _, n := range []int64{1 << 40, math.MaxInt64} {
		l.apply(t, EncodeSettings(Settings{MaxExemplars: n}))
		f.exemplars.add(name("x"), exemplarAt(base, 1))
		require.Equal(t, n, f.Settings().MaxExemplars)
		want := exemplarDump(t, f)
		require.NotEmpty(t, want)
		require.Equal(t, want, exemplarDump(t, newFSM(t, persist(t, f))))
		l.apply(t, EncodeSettings(Settings{MaxExemplars: 10}))
		require.Equal(t, want, exemplarDump(t, f))
	}
}
