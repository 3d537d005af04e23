// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package cluster makes several processes behave as one Prometheus. It replicates the entries of package fsm
// with Raft and knows nothing of their meaning, of HTTP or of PromQL.
//
// # What lives on disk
//
// <Dir>/raft/stable.db (bbolt) holds Raft's term and vote, <Dir>/raft/wal the log; <Dir>/raft/node-id names the
// node, for ever. <Dir>/snapshots-raft holds one directory per snapshot: files that the FSM hard-links there, so
// that a snapshot costs no copying, and a meta.json. State = newest good snapshot + the log after it, and the log
// store guard keeps the log back to the older of the two retained snapshots, so that a damaged snapshot costs a
// longer replay and not the node.
//
// # A write
//
// Propose works on any node. The leader hands the entry to Raft; every other node sends it to the leader over one
// HTTP/2 connection and never further (one hop). Entries are idempotent (fsm's admission rules), therefore every
// retryable failure (an election, a lost connection, an ambiguous loss of leadership) is retried until the
// caller's context ends. The bytes in flight are bounded on each node.
//
// # A linearizable read
//
// ReadIndex asks the leader for its commit index, confirmed by a majority of voters after the question was asked;
// the caller then waits with fsm.Wait until this node has applied it. All callers that come while a round is
// under way share the next one. The same rounds, once a second, measure how stale this node may be (Staleness).
//
// # A node that is too far behind
//
// Raft's InstallSnapshot carries an offer, the manifest of the leader's snapshot, and no data. The node refuses it until
// it has fetched, over connections of their own, the blocks that are not on its disk, and has put them together with
// its own ones; then it takes the next offer by a rename. See catchup.go.
//
// # Imports
//
// Blocks that are imported travel beside the log, and an entry names them: see import.go.
//
// # Membership
//
// Two layers with one direction of trust: gossip (memberlist) finds nodes and says who is alive and under which
// address; the Raft configuration decides who counts. The first bootstrap-expect nodes form the cluster once, all
// of them having promised so to the lowest id. Later nodes enter as non-voters and are promoted when they have
// caught up. An operator may remove one that is dead; it comes back as a new one would.
//
// # Clocks
//
// The nodes compare their wall clocks once a second: see clock.go. One whose clock is wrong steps aside, like one with
// a full disk, and no sample of its time gets into the log.
//
// # Duties
//
// The leader keeps the replicated settings equal to its configuration file, and proposes the retention cutoff.
//
// # Known faults of the libraries
//
// Each workaround stands beside the code that it protects and names the issue: transport.go (raft#695, raft#612),
// node_lead.go (raft#696), readindex.go (VerifyLeader), logstore_heal.go (raft-wal's sealed tail), logstore_guard.go
// (raft#503, #614), future.go (futures that Raft forgets), gossip_join.go (memberlist#222).
package cluster
