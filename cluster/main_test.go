// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain holds that a stopped node leaves no goroutine behind. memberlist's Shutdown does not wait for a probe that is
// under way; when gossip has just been cut, its answer may take some seconds not to come.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}
