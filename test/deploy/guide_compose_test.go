// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/fault"
	"github.com/deucaliondb/deucalion/test/harness"
)

// reader is who follows the guide about Compose.
type reader struct{ *fault.Compose }

func (r reader) must(t *testing.T, commands string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	out, err := r.Shell(ctx, commands)
	require.NoError(t, err)
	return out
}

// says waits until commands succeed and print want.
func (r reader) says(t *testing.T, commands, want string) {
	t.Helper()
	harness.Await(t, 2*time.Minute, commands, func(ctx context.Context) error {
		out, err := r.Shell(ctx, commands)
		if err == nil && !strings.Contains(out, want) {
			err = errors.New(out)
		}
		return err
	})
}

// TestComposeGuide does what the guide says about Compose, word by word. Grafana, which cannot be had without a registry,
// is left out, and other images are made of what is here.
func TestComposeGuide(t *testing.T) {
	if os.Getenv("DEUCALION_COMPOSE") != "1" {
		t.Skip("needs a Docker Engine: make compose-test")
	}
	c, err := fault.NewCompose(t.Context(), fault.ComposeOptions{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs(20))
		}
		require.NoError(t, c.Close())
	})
	r := reader{c}
	r.must(t, "docker compose down") // so that the guide starts it

	blocks, _ := guide(t, "## Compose")
	require.Len(t, blocks, 4)
	start, look := checks(blocks[0])
	require.Len(t, look, 1)
	r.must(t, start)
	here, _, _ := strings.Cut(start, "\n")
	here += "\n"
	for i := range 3 {
		r.says(t, here+look[0], fmt.Sprintf("172.30.92.1%d:9190", i+1))
	}
	for line := range strings.Lines(blocks[1]) {
		if strings.HasPrefix(line, "curl ") {
			r.says(t, here+line, `"status":"success"`)
		} else {
			r.must(t, here+line)
		}
	}
	for i := range 3 {
		r.says(t, here+fmt.Sprintf("curl -s localhost:%d/-/ready", 9091+i), "is Ready")
	}
	require.Empty(t, r.must(t, here+blocks[2]), "nothing but errors")
	r.must(t, here+blocks[3])
	require.Empty(t, r.must(t, here+"docker compose ps --quiet"))
}
