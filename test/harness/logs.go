// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/deucaliondb/deucalion/test/local"
)

// logTail is how much of each log a failed test shows, in bytes.
const logTail = 6000

// inspectLog fails t when the log of s tells of a crash, and shows its end when t has failed.
func inspectLog(t *testing.T, s *local.Server) {
	t.Helper()
	log, err := os.ReadFile(s.Log)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		t.Errorf("log of %s: %v", s.Name, err)
		return
	}
	for _, mark := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: "} {
		if at := bytes.Index(log, []byte(mark)); at >= 0 {
			t.Errorf("log of %s: %s", s.Name, log[at:min(at+logTail, len(log))])
		}
	}
	if t.Failed() {
		t.Logf("end of the log of %s:\n%s", s.Name, log[max(0, len(log)-logTail):])
	}
}
