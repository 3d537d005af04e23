// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// dockerTimeout bounds a call of the engine; it is longer than stopTimeout.
const dockerTimeout = 90 * time.Second

// errNoContainer means that the engine does not know a container.
var errNoContainer = errors.New("not there")

// docker calls the Docker Engine by its command line, which costs 50 ms, and Compose, which takes seconds.
type docker struct {
	env []string // of Compose
}

// container is what the engine tells of one.
type container struct {
	State struct {
		Running, Paused, Restarting bool
		Pid, ExitCode               int
	}
	NetworkSettings struct {
		Networks map[string]struct {
			IPAddress, Gateway string                       // while it runs
			IPAMConfig         struct{ IPv4Address string } // what was asked for
		}
	}
}

// run runs a program and returns what it has written.
func (d docker) run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), d.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		// Compose is a Python program and tells of its whole stack.
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out[max(0, len(out)-2000):])))
	}
	return string(out), nil
}

// call is run for docker, with a deadline of its own.
func (d docker) call(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dockerTimeout)
	defer cancel()
	return d.run(ctx, "docker", args...)
}

// program is how Compose is called here.
func (d docker) program() []string {
	if _, err := exec.LookPath("docker-compose"); err == nil {
		return []string{"docker-compose"}
	}
	return []string{"docker", "compose"}
}

func (d docker) compose(ctx context.Context, args ...string) (string, error) {
	all := append(d.program(), args...)
	return d.run(ctx, all[0], all[1:]...)
}

// containers finds those of the project, by service.
func (d docker) containers(ctx context.Context) (map[string]string, error) {
	out, err := d.run(ctx, "docker", "ps", "--all", "--no-trunc", "--filter", "label=com.docker.compose.project="+composeName,
		"--format", `{{.Label "com.docker.compose.service"}} {{.ID}}`)
	if err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for line := range strings.Lines(out) {
		if service, id, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			ids[service] = id
		}
	}
	return ids, nil
}

func (d docker) inspect(ctx context.Context, id string) (container, error) {
	var found []container
	out, err := d.run(ctx, "docker", "container", "inspect", id)
	if err == nil {
		err = json.Unmarshal([]byte(out), &found)
	}
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("container %s: %w", id, errNoContainer)
	}
	if err != nil {
		return container{}, err
	}
	return found[0], nil
}

// removeImages removes those of the images that are there.
func (d docker) removeImages(ctx context.Context, images ...string) error {
	var errs []error
	for _, image := range images {
		id, err := d.run(ctx, "docker", "images", "--quiet", image)
		if err == nil && id != "" {
			_, err = d.run(ctx, "docker", "rmi", "--force", image)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
