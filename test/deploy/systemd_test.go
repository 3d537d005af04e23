// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	unitFile     = "../../deploy/systemd/deucalion.service"
	defaultsFile = "../../deploy/systemd/deucalion.default"
)

// The unit is one that systemd takes, once the program is where it says.
func TestUnit(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd here")
	}
	text, err := os.ReadFile(unitFile)
	require.NoError(t, err)
	const program = "/usr/local/bin/deucalion"
	require.Contains(t, string(text), "ExecStart="+program+" ")
	unit := filepath.Join(t.TempDir(), "deucalion.service")
	require.NoError(t, os.WriteFile(unit, []byte(strings.ReplaceAll(string(text), program, os.Getenv("DEUCALION_BIN"))), 0o644))
	out, err := exec.CommandContext(t.Context(), tool, "verify", unit).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), unit, "a warning about the unit")
}

// Every flag that a file of deploy/ or a page of docs/ gives to the server is one of its flags.
func TestFlagsExist(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), os.Getenv("DEUCALION_BIN"), "--help").CombinedOutput()
	require.NoError(t, err)
	flag := regexp.MustCompile(`--(?:\[no-\])?([a-z]+\.[a-z0-9.-]*[a-z])`)
	have := map[string]bool{}
	for _, m := range flag.FindAllStringSubmatch(string(out), -1) {
		have[m[1]] = true
	}
	for _, file := range []string{unitFile, defaultsFile, kubernetesDir + "/statefulset.yaml", "../../deploy/docker/Dockerfile", "../../docs/getting-started.md"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		found := flag.FindAllStringSubmatch(string(text), -1)
		require.NotEmpty(t, found, file)
		for _, m := range found {
			require.True(t, have[m[1]], "%s: --%s", file, m[1])
		}
	}
}
