// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package damage does to the disks of real processes what disks do: it flips a bit in
// each kind of file, empties a data directory, fills a file system and makes a sync
// hang. Afterwards the nodes must be there again by themselves, every acknowledged
// sample must be on every node, nothing may be there that was never sent, and no log
// may tell of a panic.
//
// The tests of a full disk mount small file systems in memory and so need root.
package damage
