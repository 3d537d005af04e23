// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// debianImage holds programs of Debian's packages, as no image of theirs can be pulled where there is no registry.
const debianImage = "deucalion-fault-debian:latest"

// errNoProgram means that a package is not installed.
var errNoProgram = errors.New("no such program; test/scripts/debian-haproxy.sh and debian-prometheus.sh install them")

// debianServices are the services which Debian has the programs of, and what their images start; the user's file adds
// arguments to that.
var debianServices = map[string][]string{
	"haproxy":       {"/usr/sbin/haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"},
	"node-exporter": {"/usr/bin/prometheus-node-exporter"},
	"alertmanager":  {"/usr/bin/prometheus-alertmanager"},
}

// debianTemplates are files that Debian's Alertmanager does not start without.
const debianTemplates = "/usr/share/prometheus/alertmanager/*.tmpl"

// debianDockerfile makes a volume at /alertmanager belong to the user, as in Alertmanager's own image.
const debianDockerfile = `FROM scratch
COPY --chown=65534:65534 owned/ /
COPY root/ /
`

// writeDebian makes dir what the image is built from: the programs, at the same place as here, with their libraries.
func writeDebian(ctx context.Context, dir string) error {
	root := filepath.Join(dir, "root")
	for _, d := range []string{filepath.Join(dir, "owned", "alertmanager"), filepath.Join(root, "tmp")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	files, err := filepath.Glob(debianTemplates)
	if err != nil {
		return err
	}
	for _, entrypoint := range debianServices {
		libraries, err := sharedLibraries(ctx, entrypoint[0])
		if err != nil {
			return err
		}
		files = append(append(files, entrypoint[0]), libraries...)
	}
	slices.Sort(files)
	for _, path := range slices.Compact(files) {
		if err := copyProgram(path, filepath.Join(root, path)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(debianDockerfile), 0o644)
}

// sharedLibraries are the paths of what a program is linked with, its loader included.
func sharedLibraries(ctx context.Context, program string) ([]string, error) {
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("%s: %w", program, errNoProgram)
	}
	out, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", program, err)
	}
	var paths []string
	for _, field := range strings.Fields(string(out)) {
		if filepath.IsAbs(field) {
			paths = append(paths, field)
		}
	}
	return paths, nil
}

// copyProgram copies a file that may be run, or what a link names.
func copyProgram(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
