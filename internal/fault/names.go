// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

// Name is a crash point.
type Name string

// The crash points, in the order in which data pass them.
const (
	LogBeforeWrite      Name = "log-before-write"       // a log entry has arrived, nothing is on disk
	LogHang             Name = "log-hang"               // the same, under the eye of the log's watchdog
	LogAfterSync        Name = "log-after-sync"         // it is on disk, Raft does not know yet
	ApplyBefore         Name = "apply-before"           // a batch is committed, not applied
	ApplyAfter          Name = "apply-after"            // applied, not published
	FreezeSwapped       Name = "freeze-swapped"         // the memtable is frozen, nothing of it is flushed
	FlushBeforeInstall  Name = "flush-before-install"   // its blocks are written, not installed
	FlushAfterInstall   Name = "flush-after-install"    // they are installed, the memtable is still there
	DeleteHalf          Name = "delete-half"            // memtables have the tombstones, blocks not yet
	MergeBeforeInstall  Name = "merge-before-install"   // a merge or clean is written, not installed
	SnapshotLinked      Name = "snapshot-linked"        // a Raft snapshot's files are there, no manifest
	SnapshotBeforeName  Name = "snapshot-before-name"   // all is written, not renamed
	SnapshotAfterName   Name = "snapshot-after-name"    // renamed, the log is not truncated
	RestoreHalf         Name = "restore-half"           // blocks are replaced, tables not
	CatchUpFetching     Name = "catch-up-fetching"      // a file of the leader's snapshot is half here
	CatchUpFetched      Name = "catch-up-fetched"       // all files are here, nothing is assembled
	CatchUpBeforeCommit Name = "catch-up-before-commit" // assembled, Raft has not taken it
	LogAfterTruncate    Name = "log-after-truncate"     // the log before a snapshot is gone
)

// All lists the crash points.
func All() []Name {
	return []Name{
		LogBeforeWrite, LogHang, LogAfterSync, ApplyBefore, ApplyAfter, FreezeSwapped, FlushBeforeInstall, FlushAfterInstall,
		DeleteHalf, MergeBeforeInstall, SnapshotLinked, SnapshotBeforeName, SnapshotAfterName, RestoreHalf,
		CatchUpFetching, CatchUpFetched, CatchUpBeforeCommit, LogAfterTruncate,
	}
}
