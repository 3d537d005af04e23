// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/encoding"
)

const (
	// MaxRemotes bounds the remote stores whose positions are kept.
	MaxRemotes = 256
	// MaxRemoteName bounds the name of one, in bytes.
	MaxRemoteName = 1024
)

// Shipped tells how much of the log has been delivered to remote stores.
type Shipped struct {
	// Positions are log indexes by the names of the remote stores: all entries up to it have arrived, or never will.
	// At most MaxRemotes. A position never falls.
	Positions map[string]uint64
	// Forget names stores that are shipped to no more; at most MaxRemotes. It is done before Positions are set.
	Forget []string
}

// EncodeShipped makes the entry.
func EncodeShipped(s Shipped) []byte {
	b := binary.AppendUvarint(newEntry(kindShipped), uint64(len(s.Forget)))
	for _, name := range s.Forget {
		b = appendString(b, name)
	}
	b = binary.AppendUvarint(b, uint64(len(s.Positions)))
	for _, name := range sortedKeys(s.Positions) {
		b = binary.AppendUvarint(appendString(b, name), s.Positions[name])
	}
	return seal(b)
}

func decodeShipped(p []byte) (Shipped, error) {
	d := encoding.Decbuf{B: p}
	var s Shipped
	n := d.Uvarint64()
	for ; n > 0 && n <= MaxRemotes && d.Err() == nil; n-- {
		s.Forget = append(s.Forget, str(&d))
	}
	m := uint64(0)
	if n == 0 {
		m = d.Uvarint64()
	}
	if d.Err() == nil && (n > 0 || m > MaxRemotes) {
		return Shipped{}, fmt.Errorf("%w: more than %d remote stores", ErrFormat, MaxRemotes)
	}
	for ; m > 0 && d.Err() == nil; m-- {
		if s.Positions == nil {
			s.Positions = map[string]uint64{}
		}
		name := str(&d)
		if len(name) > MaxRemoteName {
			return Shipped{}, fmt.Errorf("%w: name of a remote store of %d bytes", ErrFormat, len(name))
		}
		s.Positions[name] = d.Uvarint64()
	}
	return s, done(&d)
}
