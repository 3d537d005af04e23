// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// followed are the sections of the guide whose shell blocks a test runs word by word, and that test.
var followed = map[string]string{
	"## Compose":                        "TestComposeGuide",
	"## Three machines with systemd":    "TestThreeMachines",
	"### The balancer":                  "TestThreeMachines",
	"## From a Prometheus to Deucalion": "TestImportGuide",
}

// unfollowed are the other commands of shell blocks, and why no test runs them.
var unfollowed = map[string]string{
	"kubectl create namespace monitoring":                                 "needs an API server; TestOverlay holds the name against the overlay",
	"kubectl apply --kustomize .":                                         "needs an API server; TestKustomize and TestDecodeIsStrict read what it sends",
	"kubectl --namespace monitoring rollout status statefulset/deucalion": "needs an API server; TestOverlay holds the names against the manifests",
	"kubectl --namespace monitoring port-forward service/deucalion 9090":  "needs an API server; TestKubernetesReferences knows the port",
}

// Every command of the guide is run by a test, or listed with the reason why not.
func TestGuideIsFollowed(t *testing.T) {
	var sources strings.Builder
	files, err := filepath.Glob("guide*_test.go")
	require.NoError(t, err)
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		sources.Write(text)
	}
	text, err := os.ReadFile(guideFile)
	require.NoError(t, err)
	seen, commands := map[string]bool{}, 0
	for _, heading := range regexp.MustCompile(`(?m)^##+ .*$`).FindAllString(string(text), -1) {
		blocks, _ := guide(t, heading)
		if name := followed[heading]; name != "" {
			require.NotEmpty(t, blocks, heading)
			require.Contains(t, sources.String(), "func "+name+"(t *testing.T)")
			require.Contains(t, sources.String(), `guide(t, "`+heading+`")`)
			seen[heading] = true
			commands += len(blocks)
			continue
		}
		for _, block := range blocks {
			for line := range strings.Lines(block) {
				line = strings.TrimSpace(line)
				require.NotEmpty(t, unfollowed[line], "%s: nothing runs %q", heading, line)
				seen[line] = true
			}
			commands++
		}
	}
	require.Len(t, seen, len(followed)+len(unfollowed), "what is listed is in the guide")
	require.Equal(t, strings.Count(string(text), "```sh\n"), commands, "every block is below a heading")
}
