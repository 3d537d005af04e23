// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import "errors"

// Errors that callers tell apart with errors.Is.
var (
	// ErrNoLeader: the cluster has no leader, or it cannot be reached, and the caller's time is over. Whether the
	// entry was committed is not known; entries are idempotent, so the caller may send it again.
	ErrNoLeader = errors.New("no leader")
	// ErrOverloaded: too many bytes are being proposed at once on this node or on the leader; nothing was
	// proposed. Come back later.
	ErrOverloaded = errors.New("too many bytes in flight")
	// ErrDiskFull: there is too little room on the disk of this node, of the leader, or of a majority; nothing was
	// proposed. Come back later.
	ErrDiskFull = errors.New("disk is full")
	// ErrTooLarge: the entry exceeds MaxEntryBytes; it will never be accepted.
	ErrTooLarge = errors.New("entry too large")
	// ErrClockOff: the clocks of this node and of the others disagree. Set it right; until then ask another node.
	ErrClockOff = errors.New("the clock of this node is wrong")
	// ErrStopped: this node is shutting down.
	ErrStopped = errors.New("node is stopping")
	// ErrFSMFailed: a broken invariant stopped the state machine of this node; it takes no part any more.
	ErrFSMFailed = errors.New("state machine has stopped")
	// ErrWrongNode: a message for another node or another cluster arrived here (an address was reused).
	ErrWrongNode = errors.New("message is for another node")
	// ErrNotReady is what Ready wraps.
	ErrNotReady = errors.New("not ready")
	// ErrCompacted: the log of this node does not hold the entry any more, or never did.
	ErrCompacted = errors.New("not in the log")
	// ErrLevel: a member is too old for what was asked.
	ErrLevel = errors.New("not all members know this kind of entry")
	// ErrUnknownNode: there is no such node in the configuration.
	ErrUnknownNode = errors.New("no such node")
	// ErrRefused: what was asked for would do harm as things are; nothing was done.
	ErrRefused = errors.New("refused")
	// ErrTransfer: the leadership has not gone where it was sent.
	ErrTransfer = errors.New("leadership not transferred")
	// ErrLogStoreMismatch: the data directory was made with the other log store.
	ErrLogStoreMismatch = errors.New("data directory has another kind of log store")
	// ErrDamaged: the data directory cannot give back all that this node once acknowledged.
	ErrDamaged = errors.New("data directory is damaged")

	// errNotLeader is the leader-only calls' refusal; it never leaves the package.
	errNotLeader = errors.New("not the leader")
	// errCatchingUp is the answer to a leader whose snapshot is not here yet. Its text travels through Raft, and
	// logging.go knows it by the text.
	errCatchingUp = errors.New("the snapshot is being fetched")
	// errInstalled: what a leader offers has been installed; it has not got the answer.
	errInstalled = errors.New("the snapshot is installed")
)
