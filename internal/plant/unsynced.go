// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package plant

import "github.com/hashicorp/raft-wal/types"

// Unsynced are files whose Sync does nothing, for SkipLogFsync.
type Unsynced struct{ types.VFS }

// Create implements types.VFS.
func (u Unsynced) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := u.VFS.Create(dir, name, size)
	return unsyncedFile{f}, err
}

// OpenWriter implements types.VFS.
func (u Unsynced) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := u.VFS.OpenWriter(dir, name)
	return unsyncedFile{f}, err
}

type unsyncedFile struct{ types.WritableFile }

// Sync implements types.WritableFile.
func (unsyncedFile) Sync() error { return nil }
