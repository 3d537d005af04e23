// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain holds that a stopped node leaves no goroutine behind. Those of memberlist that wait for the answer to a
// probe end some seconds after its shutdown.
func TestMain(m *testing.M) {
	code := m.Run()
	deadline := time.Now().Add(20 * time.Second)
	for code == 0 {
		err := goleak.Find()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
