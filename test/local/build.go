// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Build compiles cmd/deucalion of this module into dir, with tags and those that DEUCALION_BUILD_TAGS lists (by commas),
// and returns the path of the binary. overlay is a file for go build -overlay, or "". The race detector is on when DEUCALION_RACE=1; when DEUCALION_BIN names a
// binary, that is taken and nothing is built.
func Build(ctx context.Context, dir, overlay string, tags ...string) (string, error) {
	if bin := os.Getenv("DEUCALION_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	bin := filepath.Join(dir, "deucalion")
	args := []string{"build", "-buildvcs=false", "-o", bin}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	if os.Getenv("DEUCALION_RACE") == "1" {
		args = append(args, "-race")
	}
	if more := os.Getenv("DEUCALION_BUILD_TAGS"); more != "" {
		tags = append(slices.Clone(tags), strings.Split(more, ",")...)
	}
	// The service discoveries of clouds are nine tenths of what there is to compile and link, and no suite has a cloud.
	args = append(args, "-tags", strings.Join(append(tags, "remove_all_sd"), ","))
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/deucalion")...)
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(mod)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
}
