// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/encoding"
)

// Delete removes the samples that exist at its log index, in the closed range
// [Mint, Maxt] (milliseconds), of every series that one of the selectors
// matches. All selectors take effect together.
type Delete struct {
	// ID makes the delete idempotent: one that was applied already has no effect,
	// so a retry after a lost answer cannot delete what was written meanwhile.
	ID         string
	Selectors  [][]*labels.Matcher
	Mint, Maxt int64
}

// EncodeDelete makes a delete entry.
func EncodeDelete(d Delete) []byte {
	b := appendString(newEntry(kindDelete), d.ID)
	b = binary.AppendVarint(b, d.Mint)
	b = binary.AppendVarint(b, d.Maxt)
	b = binary.AppendUvarint(b, uint64(len(d.Selectors)))
	for _, ms := range d.Selectors {
		b = binary.AppendUvarint(b, uint64(len(ms)))
		for _, m := range ms {
			b = append(b, byte(m.Type))
			b = appendString(b, m.Name)
			b = appendString(b, m.Value)
		}
	}
	return seal(b)
}

func decodeDelete(p []byte) (Delete, error) {
	d := encoding.Decbuf{B: p}
	out := Delete{ID: str(&d), Mint: d.Varint64(), Maxt: d.Varint64()}
	for n := d.Uvarint(); n > 0 && d.Err() == nil; n-- {
		var ms []*labels.Matcher
		for k := d.Uvarint(); k > 0 && d.Err() == nil; k-- {
			t, name, value := labels.MatchType(d.Byte()), str(&d), str(&d)
			if d.Err() != nil {
				break
			}
			if t < labels.MatchEqual || t > labels.MatchNotRegexp {
				return Delete{}, fmt.Errorf("%w: matcher type %d", ErrFormat, t)
			}
			m, err := labels.NewMatcher(t, name, value)
			if err != nil {
				return Delete{}, fmt.Errorf("%w: %w", ErrFormat, err)
			}
			ms = append(ms, m)
		}
		out.Selectors = append(out.Selectors, ms)
	}
	return out, done(&d)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// str reads a string of its own: the decoder's shares the entry's memory, and
// panics on a length of 2^63 or more.
func str(d *encoding.Decbuf) string {
	n := d.Uvarint64()
	if n > uint64(d.Len()) {
		d.E = encoding.ErrInvalidSize
		return ""
	}
	s := string(d.B[:n])
	d.B = d.B[n:]
	return s
}

// done reports a decoding error, or bytes that are left.
func done(d *encoding.Decbuf) error {
	if err := d.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if d.Len() > 0 {
		return fmt.Errorf("%w: %d trailing bytes", ErrFormat, d.Len())
	}
	return nil
}
