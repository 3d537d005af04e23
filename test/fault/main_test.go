// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"testing"

	"github.com/deucaliondb/deucalion/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
