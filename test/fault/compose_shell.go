// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// composeShell makes a shell that of a user of the project: "docker compose" knows the override, "up" starts what there is
// an image of, and localhost is where the ports are published.
const composeShell = `
docker() {
  [ "$1" = compose ]
  local verb=$2
  shift 2
  [ "$verb" != up ] || set -- "$@" $SERVICES
  command $COMPOSE "$verb" "$@"
}
curl() { command curl --connect-to "::$DEUCALION_BIND:" "$@"; }
`

// Shell runs what a user types in the repository, and returns what is printed apart from errors.
func (c *Compose) Shell(ctx context.Context, commands string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", composeShell+commands)
	cmd.Dir = c.root
	program := append(c.docker.program(), "--file", c.file(), "--file", c.path("override.json"))
	cmd.Env = append(append(os.Environ(), c.docker.env...), "COMPOSE="+strings.Join(program, " "), "SERVICES="+strings.Join(c.services(), " "))
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s%s", commands, err, &out, &errs)
	}
	return out.String(), nil
}
