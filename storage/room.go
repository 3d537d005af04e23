// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"fmt"
	"syscall"

	"github.com/prometheus/prometheus/tsdb"
)

// chunkRoom is what stays free beside the chunks of one commit: the head's write
// buffer of 4 MiB, which goes to the disk when it is full, and as much for others.
const chunkRoom = 8 << 20

// ChunkBytes bounds the size of the chunk that the commit of x, out of order, may
// complete and so have written to the disk.
func ChunkBytes(x Sample) int64 {
	values := 2
	switch {
	case x.H != nil:
		values = 6 + len(x.H.PositiveBuckets) + len(x.H.NegativeBuckets)
	case x.FH != nil:
		values = 6 + len(x.FH.PositiveBuckets) + len(x.FH.NegativeBuckets)
	}
	return int64(values) * 8 * tsdb.DefaultOutOfOrderCapMax
}

// CheckRoom returns an error that wraps syscall.ENOSPC if the disk has no room for
// chunks of so many bytes. Out-of-order samples may be committed only if it has:
// TSDB panics when it cannot write a chunk. Where it cannot be told there is room.
func (s *Store) CheckRoom(bytes int64) error {
	free, err := freeBytes(s.opts.Dir)
	if err == nil && free < bytes+chunkRoom {
		return fmt.Errorf("%d bytes are free, out-of-order samples may need %d: %w", free, bytes+chunkRoom, syscall.ENOSPC)
	}
	return nil
}
