// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/encoding"
)

// MaxDigestRanges bounds the ranges of one digest.
const MaxDigestRanges = 16

// TimeRange is a closed range of timestamps in milliseconds.
type TimeRange struct {
	Mint int64 `json:"mint"`
	Maxt int64 `json:"maxt"`
}

// Contains tells whether all of x lies in r.
func (r TimeRange) Contains(x TimeRange) bool { return r.Mint <= x.Mint && x.Maxt <= r.Maxt }

// Digest asks every node for hashes of its logical state at the entry's index:
// one of the tables, and one of the samples of each range. WaitDigest(ID) returns
// this node's.
type Digest struct {
	ID string
	// Hurry makes the node work at full speed: somebody waits. Else it leaves most
	// of a core to the rest.
	Hurry  bool
	Ranges []TimeRange // at most MaxDigestRanges
}

// EncodeDigest makes the entry.
func EncodeDigest(d Digest) []byte {
	b := appendString(newEntry(kindDigest), d.ID)
	hurry := byte(0)
	if d.Hurry {
		hurry = 1
	}
	b = binary.AppendUvarint(append(b, hurry), uint64(len(d.Ranges)))
	for _, r := range d.Ranges {
		b = binary.AppendVarint(binary.AppendVarint(b, r.Mint), r.Maxt)
	}
	return seal(b)
}

func decodeDigest(p []byte) (Digest, error) {
	d := encoding.Decbuf{B: p}
	x := Digest{ID: str(&d)}
	hurry := d.Byte()
	n := d.Uvarint64()
	if d.Err() == nil && (hurry > 1 || n > MaxDigestRanges) {
		return Digest{}, fmt.Errorf("%w: digest of %d ranges, flag %d", ErrFormat, n, hurry)
	}
	x.Hurry = hurry == 1
	for ; n > 0 && d.Err() == nil; n-- {
		x.Ranges = append(x.Ranges, TimeRange{d.Varint64(), d.Varint64()})
	}
	return x, done(&d)
}
