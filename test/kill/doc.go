// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package kill is the kill -9 loop: writers send samples that name themselves to
// random nodes while nodes are killed, frozen, stopped and started again, one, two or
// all three at a time, some of them in the middle of a flush. In the end every
// acknowledged sample must be on every node, nothing may be there that was never sent,
// and the digests of all data must be equal.
//
// A second test kills the leader for the time that a failover takes, and a third one stops its process and looks for
// stale reads when it wakes up.
//
// DEUCALION_KILL_LOOPS says how many faults there are (3 by default, "make kill" has
// 100), DEUCALION_KILL_SEED repeats the choice of faults of an earlier run, which
// prints its seed, DEUCALION_FAILOVERS how often the leader is killed for the time that
// a failover takes (3), and DEUCALION_RACE=1 runs nodes with the race detector.
package kill
