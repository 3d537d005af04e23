// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package plant holds planted defects: wrong code beside the right one, each a mistake that was made in a database
// somewhere. They answer the question whether the tests would notice: "make plants" switches on one after the other
// and insists that the suite named for it in test/scripts/plants.sh turns red. A defect that no suite finds means
// that a test is missing.
//
// In a normal build all of them are the constant false and the compiler drops the wrong code. With the build tag
// "plants" the environment variable DEUCALION_PLANT names the one that is on.
package plant
