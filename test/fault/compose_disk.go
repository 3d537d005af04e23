// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// mountDisk makes dir the disk of a node, which belongs to the user of the image.
func mountDisk(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// The name of the device is what unmountDisks finds it by.
	return command(ctx, "mount", "-t", "tmpfs", "-o", "size="+diskSize+",uid=65534,gid=65534,mode=0755", composeName, dir)
}

// unmountDisks unmounts all disks of nodes, also those that another process has mounted.
func unmountDisks(ctx context.Context) error {
	dirs, err := mountedDisks()
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range slices.Backward(dirs) {
		if err := command(ctx, "umount", dir); err != nil {
			// In use: it goes when the last user does.
			errs = append(errs, command(ctx, "umount", "--lazy", dir))
		}
	}
	return errors.Join(errs...)
}

func mountedDisks() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var dirs []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// ID parent major:minor root DIRECTORY options... - type DEVICE options, see proc(5).
		mount, device, _ := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(device); len(fields) > 1 && fields[1] == composeName {
			dirs = append(dirs, strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(strings.Fields(mount)[4]))
		}
	}
	return dirs, lines.Err()
}

// sharedRoot tells whether mounts of the machine spread to containers; "rslave" needs that.
func sharedRoot(ctx context.Context) bool {
	out, err := exec.CommandContext(ctx, "findmnt", "--noheadings", "--output", "PROPAGATION", "/").Output()
	return err == nil && strings.HasPrefix(strings.TrimSpace(string(out)), "shared")
}

func command(ctx context.Context, program string, args ...string) error {
	if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
