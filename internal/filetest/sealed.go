// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package filetest

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Reseal changes a file that is one line of JSON and one with its CRC-32C, which is right again afterwards. Numbers are
// json.Number.
func Reseal(t *testing.T, name string, change func(map[string]any)) {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	line, _, _ := strings.Cut(string(b), "\n")
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	var m map[string]any
	require.NoError(t, d.Decode(&m))
	change(m)
	b, err = json.Marshal(m)
	require.NoError(t, err)
	b = fmt.Appendf(b, "\n%08x\n", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	require.NoError(t, os.WriteFile(name, b, 0o666))
}
