// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package crash_test

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/internal/fault"
)

// points lists the crash points that DEUCALION_CRASH_POINTS names, or all.
func points(t *testing.T) []fault.Name {
	t.Helper()
	if given := os.Getenv("DEUCALION_CRASH_POINTS"); given != "" {
		var out []fault.Name
		for name := range strings.SplitSeq(given, ",") {
			require.Contains(t, fault.All(), fault.Name(name), "DEUCALION_CRASH_POINTS")
			out = append(out, fault.Name(name))
		}
		return out
	}
	return fault.All()
}

// TestPoints: a point that no code passes would be one that nobody dies at.
func TestPoints(t *testing.T) {
	code := source(t)
	for _, n := range fault.All() {
		require.True(t, bytes.Contains(code, []byte("fault.Point(fault."+constant(n)+")")), "no code has the point %s", n)
	}
}

// constant is the name of n in package fault: log-before-write is LogBeforeWrite.
func constant(n fault.Name) string {
	var b strings.Builder
	for word := range strings.SplitSeq(string(n), "-") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

// source is the text of all packages that may have crash points.
func source(t *testing.T) []byte {
	t.Helper()
	var all []byte
	for _, dir := range []string{"storage", "fsm", "cluster"} {
		err := filepath.WalkDir(filepath.Join("../..", dir), func(p string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
				return err
			}
			text, err := os.ReadFile(p)
			all = append(all, text...)
			return err
		})
		require.NoError(t, err)
	}
	return all
}

// visit is the visit at which a node shall die. What is rare is waited for less often.
func visit(rng *rand.Rand, n fault.Name) int {
	switch n {
	case fault.RestoreHalf, fault.CatchUpFetched, fault.CatchUpBeforeCommit:
		return 1 // one a start
	case fault.LogAfterTruncate, fault.MergeBeforeInstall:
		return 1 + rng.IntN(2)
	default:
		return 1 + rng.IntN(5)
	}
}

// needsWipe tells whether the point is to be reached by a node without data, which takes the leader's snapshot.
func needsWipe(n fault.Name, rng *rand.Rand) bool {
	switch n {
	case fault.CatchUpFetching, fault.CatchUpFetched, fault.CatchUpBeforeCommit:
		return true
	case fault.RestoreHalf:
		return rng.IntN(2) == 0
	}
	return false
}
