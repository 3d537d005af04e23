// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/bench"
)

func TestMedian(t *testing.T) {
	require.Equal(t, 2.0, median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, median([]float64{4, 1, 2, 3}))
}

// Ratios are taken within a round, so that a noisy round spoils neither side alone.
func TestRatiosAreOfOneRound(t *testing.T) {
	one := func(round int, scenario, role string, cpu float64) *run {
		return &run{
			round: round, scenario: scenario, report: &bench.Report{Samples: 1, Elapsed: 1},
			rows: []row{{round: round, role: role, Cost: bench.Cost{CPUPerMillion: cpu}}},
		}
	}
	var out strings.Builder
	printTable(&out, []*run{
		one(1, "stock", stockReceives, 4), one(1, "leader", leaderReceives, 1),
		one(2, "stock", stockReceives, 40), one(2, "leader", leaderReceives, 10),
	})
	require.Contains(t, out.String(), "0.250 [0.250..0.250]")
}
