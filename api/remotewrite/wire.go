// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// cursor walks the records of one protobuf message:
//
//	c := cursor{rest: message}
//	for c.next() { ... c.num, c.raw ... }
//	return c.err
type cursor struct {
	rest []byte
	num  protowire.Number
	typ  protowire.Type
	val  uint64 // of a varint or a fixed field
	raw  []byte // of a length-delimited field; aliases the message
	err  error
}

// uvarint is protowire.ConsumeVarint with a way round the call for the one-byte case, which is nearly every tag and
// length of a write request. n is negative on error.
func uvarint(b []byte) (uint64, int) {
	if len(b) == 0 || b[0] > 0x7f {
		return longUvarint(b)
	}
	return uint64(b[0]), 1
}

// longUvarint is kept out of line so that uvarint is small enough for the compiler to put it in line.
//
//go:noinline
func longUvarint(b []byte) (uint64, int) { return protowire.ConsumeVarint(b) }

// next takes one record off the message; false at its end and after an error. Groups, which no message here has, are
// skipped.
func (c *cursor) next() bool {
	if len(c.rest) == 0 || c.err != nil {
		return false
	}
	tag, n := uvarint(c.rest)
	if n < 0 || tag>>3 < uint64(protowire.MinValidNumber) || tag>>3 > uint64(protowire.MaxValidNumber) {
		return c.fail("illegal tag")
	}
	c.num, c.typ = protowire.Number(tag>>3), protowire.Type(tag&7)
	b := c.rest[n:]
	switch c.typ {
	case protowire.BytesType:
		size, m := uvarint(b)
		if m < 0 || size > uint64(len(b)-m) {
			return c.fail("field is cut short")
		}
		n = m + int(size)
		c.raw = b[m:n:n]
	case protowire.VarintType:
		c.val, n = uvarint(b)
	case protowire.Fixed64Type:
		c.val, n = protowire.ConsumeFixed64(b)
	default:
		n = protowire.ConsumeFieldValue(c.num, c.typ, b)
	}
	if n < 0 {
		return c.fail(protowire.ParseError(n).Error())
	}
	c.rest = b[n:]
	return true
}

// want ends the walk with an error if the record has another wire type than its field.
func (c *cursor) want(typ protowire.Type) bool {
	if c.typ == typ {
		return true
	}
	return c.fail("wrong wire type")
}

func (c *cursor) fail(why string) bool {
	c.err = fmt.Errorf("%w: %s (field %d, %d bytes before the end)", ErrMalformed, why, c.num, len(c.rest))
	return false
}

// sample parses a Sample message of either version. The usual layout, value then timestamp, is taken in one step.
func sample(b []byte, v2 bool) (t int64, v float64, err error) {
	if len(b) > 10 && b[0] == 0x09 && b[9] == 0x10 {
		ts, n := protowire.ConsumeVarint(b[10:])
		if n == len(b)-10 {
			return int64(ts), math.Float64frombits(binary.LittleEndian.Uint64(b[1:])), nil
		}
	}
	c := cursor{rest: b}
	for c.next() {
		switch {
		case c.num == 1 && c.want(protowire.Fixed64Type):
			v = math.Float64frombits(c.val)
		case c.num == 2 && c.want(protowire.VarintType):
			t = int64(c.val)
		case c.num == 3 && v2:
			c.want(protowire.VarintType)
		}
	}
	return t, v, c.err
}
