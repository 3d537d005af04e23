// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package filetest is for tests of what disks and files may do to their reader: be small and full, or be changed by
// somebody who knows their checksums.
package filetest

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Mount makes dir, which exists, a file system of its own in memory until the end of the test. The options are those of
// tmpfs ("size=16m,nr_inodes=300"). It skips the test where that is not allowed: only root may mount.
func Mount(t *testing.T, dir, options string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("no file system of its own: mount: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
}

// Fill writes the file path until not a byte more fits on its disk.
func Fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else {
			require.NoError(t, err)
		}
	}
}
