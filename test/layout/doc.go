// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package layout holds the shape of the code by tests: which package may import
// which, that every package says what it is for, that every file carries the licence,
// and that no file grows into a heap.
package layout
