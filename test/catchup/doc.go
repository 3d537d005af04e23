// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package catchup lets a node of a real cluster fall behind the log, and lose its data
// directory, while the others go on. It must come back with the same data, must move no
// more bytes than it lacks, and must go on where it was after a kill -9 in the middle.
package catchup
