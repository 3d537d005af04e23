// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || freebsd

package storage

import "syscall"

// freeBytes is what this process may still write to the file system of dir.
func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
