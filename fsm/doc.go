// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package fsm is the replicated state machine: it turns log entries into
// samples, deletes and settings, and decides which sample is accepted.
//
// What is stored is a pure function of the log. Apply uses no wall clock, no
// random number, no map order and no local setting; whoever proposes an entry
// puts such values into it. How the samples lie on disk is package storage's
// business, and never shows.
//
// # Entries
//
// An entry is a version byte, a kind byte, a payload and a CRC-32C of all
// before it. Each kind has a file: entry_append.go, entry_delete.go and so on.
// An entry that cannot be read stops the node; it is never skipped.
//
// # Series ids
//
// The FSM numbers series in log order. A proposer looks a series up in its own
// copy of the table and writes the id; a series that it does not know travels
// once, with its labels, in the same entry. Ids are never used again. A series
// that was idle for so long that no sample could hit an old one (admission.go)
// is dropped at a cutoff entry; an entry that still names its id is refused as
// a whole, and the Batch that made it sends it again with labels.
//
// # Writing
//
// A Batch collects the samples of one request, drops what the node's own state
// already decides, and commits the rest through a Proposer.
//
// # Goroutines
//
// Apply, Publish, Snapshot and Restore belong to one goroutine, the applier.
// Everything else may be called from any. Cleans and user snapshots run on
// goroutines of the FSM, which Close waits for.
package fsm
