// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package admin tests on three real nodes what an operator does to the data: deletion,
// cleanup and snapshots, each called on a follower and looked at on every node, also
// after restarts; and what the nodes still do when the quorum is lost.
package admin
