// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package fault holds the crash points: places in the code at which a test makes the process die as by kill -9, or
// wait, to prove that what is on the disk at that moment is enough to go on.
//
// A point costs nothing in a normal build, where Point is empty. With the build tag "faults" the environment variable
// DEUCALION_FAULT arms points, as a comma-separated list of name=action:
//
//	flush-before-install=kill        die when the point is reached
//	flush-before-install=kill@3      die when it is reached for the third time
//	log-before-sync=sleep:30s@2      wait the second time
//
// Names are constants of this package, so that a test can list them and a typing error does not compile.
package fault
