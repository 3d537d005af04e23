// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !plants

package plant

// The defects.
const (
	AckBeforeCommit     = false // ack-before-commit: a write is acknowledged when it is handed to Raft
	StaleLinearizable   = false // stale-linearizable: a follower takes its own applied index for a read index
	IgnoreStaleness     = false // ignore-staleness: a read of level bounded is answered whatever the age of the node's state
	UnconfirmedLeader   = false // unconfirmed-leader: a leader gives read indexes without asking a majority
	PublishEarly        = false // publish-early: an index counts as applied before its entries are
	HeartbeatFastPath   = false // heartbeat-fast-path: Raft handles heartbeats beside its main loop (raft#695)
	SkipLogFsync        = false // skip-log-fsync: the log is not synced before it is acknowledged
	ApplyTwice          = false // apply-twice: a snapshot claims to be some entries older than it is
	LoseDeleteAtFlush   = false // lose-delete-at-flush: deletes of a frozen memtable do not reach its blocks
	LoseDeleteAtMerge   = false // lose-delete-at-merge: deletes that come during a merge do not reach its result
	ForgetOutOfOrder    = false // forget-out-of-order: out-of-order samples are not flushed, nor in snapshots
	StaleSeriesRef      = false // stale-series-ref: a series keeps its place in a memtable that is gone
	IgnoreChecksum      = false // ignore-checksum: a snapshot's checksums are not compared
	RestoreKeepsTables  = false // restore-keeps-tables: a snapshot of the leader replaces the samples alone
	ForgetMissedDeletes = false // forget-missed-deletes: deletes that a node has missed are not applied to the blocks that it keeps
	VoteWithoutMemory   = false // vote-without-memory: a node that has lost its log votes
	BlindDigest         = false // blind-digest: a digest leaves the values out
	IgnoreLogChecksum   = false // ignore-log-checksum: checksums of the Raft log are not compared
)
