// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import "errors"

var (
	// ErrFormat is an entry or a snapshot that this version cannot read. The
	// node must stop: to skip it would make this node differ from the others.
	ErrFormat = errors.New("unreadable log entry")
	// ErrSnapshot is a snapshot directory that is damaged or of a newer version.
	ErrSnapshot = errors.New("unusable snapshot")
	// ErrNewer is a log entry or a snapshot that a newer version has made. Nothing is
	// wrong with it; this node must be upgraded.
	ErrNewer = errors.New("made by a newer version")
	// ErrUnknownTask is returned for a clean, user snapshot or digest that this node
	// does not remember.
	ErrUnknownTask = errors.New("unknown task")
	// ErrLowDisk is why a node made no user snapshot.
	ErrLowDisk = errors.New("the disk is nearly full")
	// ErrClosed is returned by waits that Close interrupts.
	ErrClosed = errors.New("state machine is closed")
)

var errUnknownSection = errors.New("unknown section or record")
