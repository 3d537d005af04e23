// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/fault"
	"github.com/deucaliondb/deucalion/test/harness"
)

// seconds is how long a run lasts when the environment does not say.
const seconds = 30

// options reads DEUCALION_FAULT_SECONDS, DEUCALION_FAULT_SEED, DEUCALION_FAULT_FAULTS (how many at most) and
// DEUCALION_FAULT_ONLY (a regular expression for their names).
func options(t *testing.T, s *fault.System) fault.Options {
	o := fault.Options{
		System: s,
		Seed:   harness.Number(t, "DEUCALION_FAULT_SEED", rand.Uint64N(1e9)),
		Time:   time.Duration(harness.Number(t, "DEUCALION_FAULT_SECONDS", seconds)) * time.Second,
		Faults: int(harness.Number(t, "DEUCALION_FAULT_FAULTS", 0)),
		Logf:   t.Logf,
	}
	if o.Time >= 2*time.Minute { // in a shorter run a few long faults may be all there is
		o.Floor = 0.15
	}
	t.Logf("seed %d", o.Seed)
	only, err := regexp.Compile(os.Getenv("DEUCALION_FAULT_ONLY"))
	require.NoError(t, err)
	o.Kinds = slices.DeleteFunc(fault.Faults(), func(f fault.Fault) bool { return !only.MatchString(f.Name) })
	return o
}

// publish shows a report, writes it into DEUCALION_FAULT_REPORT if that is set, and fails the test unless it is green.
func publish(t *testing.T, r *fault.Report, name string) {
	t.Helper()
	t.Log("\n" + r.Markdown())
	if dir := os.Getenv("DEUCALION_FAULT_REPORT"); dir != "" {
		require.NoError(t, r.Write(dir, name))
	}
	require.True(t, r.Green(), "%q", r.Findings)
}

// TestNamespaces does faults to three nodes in network namespaces, behind a real load balancer: to DEUCALION_FAULT_CLUSTERS
// (1) such systems side by side, with seeds one after the other.
func TestNamespaces(t *testing.T) {
	clusters := int(harness.Number(t, "DEUCALION_FAULT_CLUSTERS", 1))
	net := int(harness.Number(t, "DEUCALION_FAULT_NET", 1))
	first := options(t, nil)
	reports, errs := make([]*fault.Report, clusters), make([]error, clusters)
	var wg sync.WaitGroup
	for i := range clusters {
		o := first
		o.Seed += uint64(i)
		s, w := namespaces(t, net+i, o.Seed)
		o.System, o.Parts = &s.System, w.Parts()
		if clusters > 1 {
			o.Logf = func(format string, args ...any) { t.Logf(fmt.Sprintf("cluster %d: ", i+1)+format, args...) }
		}
		wg.Go(func() { reports[i], errs[i] = fault.Run(t.Context(), o) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	publish(t, fault.Merge(reports), "namespaces")
}
