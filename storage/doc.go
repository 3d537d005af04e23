// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package storage keeps the samples of one node in tiers made of Prometheus
// TSDB parts.
//
//	active   one memtable (a tsdb.Head without WAL), receives appends
//	frozen   immutable memtables with the deletes that came after their freeze,
//	         waiting to be flushed
//	blocks   immutable TSDB blocks with tombstones, merged in the background
//
// The package knows nothing of Raft. Its caller (package fsm) feeds it from one
// goroutine, in log order: Append, Delete, SetCutoff, Snapshot. What is stored
// is decided there; how it is laid out is decided here, and never changes an
// answer: two stores fed alike answer alike, whatever each has flushed, merged
// or cleaned (DESIGN.md section 1).
//
// # Nothing here is trusted after a restart
//
// A store is opened in an emptied directory, from the hard links of a
// snapshot, and the log is replayed on top. So installing a block is not
// atomic on disk and need not be; only Snapshot output is fsynced and
// checksummed.
//
// # Who may do what
//
// One goroutine, the applier, calls the methods that change logical state. Two
// background goroutines belong to the Store: the flusher, which turns frozen
// memtables into blocks, and the merger. Store.mu guards the list of tiers: the
// applier and the installers of finished blocks hold it to write, queries hold
// it to read while they take references. Deletes that arrive while a block is
// being written are remembered in its job and applied to the result before
// it is installed, so a delete never waits for a flush or a merge.
package storage
