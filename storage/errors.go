// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import "errors"

var (
	// ErrClosed is returned by calls on a closed Store.
	ErrClosed = errors.New("storage is closed")
	// ErrDamaged marks a snapshot file that is not what its manifest says.
	ErrDamaged = errors.New("snapshot is damaged")
	// ErrWrite is a write or a sync that the disk has failed. After it nobody knows
	// what is on the disk, so it is not tried again.
	ErrWrite = errors.New("the disk has failed a write")
)
