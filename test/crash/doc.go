// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package crash makes nodes die at every crash point of package fault. Under a load of
// writes, deletes and cleanups, with memtables, snapshots and a log so small that all
// of them turn over within seconds, one node after the other is started with a point
// armed, must reach it and die there, and is started again. Every acknowledged sample
// must then be on every node, no deleted one may be back, nothing may be there that was
// never sent, and the digests of all data must be equal.
//
// DEUCALION_CRASH_ROUNDS says how many points are hit (4 by default, "make crash" has
// 100; the points take turns in random order), DEUCALION_CRASH_SEED repeats the choices
// of an earlier run, which prints its seed, DEUCALION_CRASH_POINTS lists the points to
// choose from (all by default), and DEUCALION_RACE=1 runs nodes with the race detector.
package crash
