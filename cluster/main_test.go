// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain holds that a stopped node leaves no goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
