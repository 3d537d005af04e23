// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !faults

package fault

// Enabled tells whether this build has crash points.
const Enabled = false

// Point does nothing in this build.
func Point(Name) {}
