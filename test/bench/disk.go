// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// Disk is the size of a directory tree.
type Disk struct {
	Allocated int64 // bytes of disk; a file with many links counts once
	Apparent  int64 // lengths of the files
}

// ReadDisk measures a directory tree that may be written to meanwhile.
func ReadDisk(dir string) (Disk, error) {
	var d Disk
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !seen[st.Ino] {
			seen[st.Ino] = true
			d.Allocated += st.Blocks * 512
			d.Apparent += st.Size
		}
		return nil
	})
	return d, err
}
