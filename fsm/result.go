// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/encoding"
)

// Result is what applying an entry gave. It is the same on every node.
type Result struct {
	Index   uint64    // log index of the entry
	Unknown bool      // the entry named a series id that is gone; nothing of it was applied
	Err     string    // why an entry other than an append was refused; "" if it was not
	Refused []Refusal // of an append, by position
}

// Refusal names a sample of an append entry by its position among all samples
// of the entry, in payload order.
type Refusal struct {
	Pos    uint32
	Reason Reason
}

const resultVersion = 1

// MarshalBinary encodes r for the way from the leader to the proposing node.
func (r Result) MarshalBinary() ([]byte, error) {
	b := []byte{resultVersion, 0}
	if r.Unknown {
		b[1] = 1
	}
	b = binary.AppendUvarint(b, r.Index)
	b = binary.AppendUvarint(b, uint64(len(r.Err)))
	b = append(b, r.Err...)
	b = binary.AppendUvarint(b, uint64(len(r.Refused)))
	for _, x := range r.Refused {
		b = binary.AppendUvarint(b, uint64(x.Pos))
		b = append(b, byte(x.Reason))
	}
	return b, nil
}

// UnmarshalBinary decodes what MarshalBinary made.
func (r *Result) UnmarshalBinary(b []byte) error {
	d := encoding.Decbuf{B: b}
	if v := d.Byte(); v != resultVersion && d.Err() == nil {
		return fmt.Errorf("result version %d, want %d", v, resultVersion)
	}
	*r = Result{Unknown: d.Byte() == 1, Index: d.Uvarint64(), Err: str(&d)}
	n := d.Uvarint()
	if n > d.Len()/2 {
		return errors.New("result: more refusals than bytes")
	}
	for range n {
		r.Refused = append(r.Refused, Refusal{uint32(d.Uvarint()), Reason(d.Byte())})
	}
	if d.Err() == nil && d.Len() > 0 {
		return errors.New("result: trailing bytes")
	}
	return d.Err()
}
