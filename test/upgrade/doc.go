// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package upgrade starts this version on the data directories that released versions
// have left behind, and on such as only a later version could have left: the former
// must give all their samples back, the latter must be refused and stay as they are.
//
// testdata holds one archive a release, of a node that was killed, so that there is a
// snapshot and a log to replay, and beside it what the node answered before. They are
// made by test/scripts/fixture.sh and never made anew.
package upgrade
